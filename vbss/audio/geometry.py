"""Microphone arrays: where the microphones are, and how a plane wave reaches them.

Positions are in metres in a right-handed frame with z up; azimuths are counter-clockwise from +x, in radians.
"""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.errors import InputError

_SHORTHAND = re.compile(r"(circular|linear):([^:]*):([^:]*)")
# No array is this large; coordinates in millimetres are.
_MAX_EXTENT = 100.0
_MAX_MICROPHONES = 1000


def read_microphone_positions(spec: str | Path) -> Float[np.ndarray, "microphones 3"]:
    """Microphone positions in metres, float64, from a shorthand or a text file.

    `spec` is one of

    - `circular:M:DIAMETER`: M microphones evenly on a horizontal circle, the first on +x, counter-clockwise;
    - `linear:M:SPACING`: M microphones along x, from low to high x, centred on the origin;
    - the path of a text file with one microphone a line, its x y or x y z in metres, separated by commas or
      white space. `#` starts a comment; one header line of names is allowed.

    Raises:
        InputError: if the shorthand or the file cannot be read, or the positions cannot be those of an array
            (see `check_microphone_positions`).
    """
    shorthand = _SHORTHAND.fullmatch(str(spec))
    if shorthand is not None:
        positions = _positions_of_shorthand(str(spec), *shorthand.groups())
    else:
        positions = _positions_of_file(Path(spec))
    check_microphone_positions(positions, str(spec))
    return positions


def check_microphone_positions(positions: Any, name: str = "microphone_positions") -> None:
    """Refuse what cannot be an array's positions in metres; `name` is what the message calls them.

    Raises:
        InputError: unless it is an array of real numbers of 2 to 1000 microphones, with three finite coordinates each,
            no two at the same place, none more than 100 m apart, and not all above each other.
    """
    if not isinstance(positions, np.ndarray | Array) or np.dtype(positions.dtype).kind not in "iuf":
        kind = getattr(positions, "dtype", type(positions).__name__)
        raise InputError(f"{name} must be an array of real numbers, in metres, got {kind}.")
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"{name} must have shape (microphones, 3), got {positions.shape}.")
    if len(positions) < 2:
        raise InputError(f"{name} must hold at least 2 microphones, got {len(positions)}.")
    if len(positions) > _MAX_MICROPHONES:
        raise InputError(f"{name} must hold at most {_MAX_MICROPHONES} microphones, got {len(positions)}.")
    if not np.all(np.isfinite(positions)):
        first = np.argwhere(~np.isfinite(positions))[0, 0]
        raise InputError(f"{name} must be finite; microphone {first} (counted from 0) is not.")
    positions = np.asarray(positions, np.float64)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    if distances.max() > _MAX_EXTENT:
        raise InputError(
            f"{name} must be in metres: two microphones are {distances.max():.4g} m apart. Are they in millimetres?"
        )
    first, second = np.nonzero(np.triu(distances <= 1e-6, 1))
    if len(first):
        raise InputError(f"{name}: microphones {first[0]} and {second[0]} (counted from 0) are at the same place.")
    if np.ptp(positions[:, :2], axis=0).max() <= 1e-6:
        raise InputError(f"{name} differ in height only, which tells nothing of azimuths: two must stand side by side.")


def is_linear(positions: Float[np.ndarray, "microphones 3"]) -> bool:
    """Whether the array's horizontal extent is a line, so that it cannot tell the two sides of that line apart."""
    horizontal = positions[:, :2] - positions[:, :2].mean(axis=0)
    spread = np.linalg.svd(horizontal, compute_uv=False)
    return bool(spread[1] <= 1e-6 * spread[0])


def azimuth_grid(num_directions: int) -> Float[np.ndarray, " directions"]:
    """`num_directions` azimuths evenly over [0, 2 pi), in radians, float64, the first at 0.

    Raises:
        InputError: if `num_directions` is not positive.
    """
    if num_directions < 1:
        raise InputError(f"num_directions must be positive, got {num_directions}.")
    return 2 * np.pi * np.arange(num_directions) / num_directions


def steering_vectors(
    microphone_positions: Float[Array | np.ndarray, "microphones 3"],
    azimuths: Float[Array | np.ndarray, " directions"],
    frequencies: Float[Array | np.ndarray, " frequencies"],
    speed_of_sound: float = 343.0,
) -> Complex[Array, "frequencies directions microphones"]:
    """How a horizontal plane wave from each azimuth reaches the microphones, relative to their centroid.

    b_fdm = exp(+j 2 pi f r_m . u_d / c) with r_m from the centroid (m), u_d the unit vector towards the
    source and f in Hz: a microphone displaced towards the source hears it earlier, which in a transform with
    exp(-j 2 pi f t), such as `STFT`, is a positive phase. Complex in JAX's default precision.

    Raises:
        InputError: if `speed_of_sound` (m/s) is not positive.
    """
    if not (math.isfinite(speed_of_sound) and speed_of_sound > 0):
        raise InputError(f"speed_of_sound must be positive, in m/s, got {speed_of_sound!r}.")
    positions, azimuths, frequencies = (jnp.asarray(a, float) for a in (microphone_positions, azimuths, frequencies))
    towards_source = jnp.stack([jnp.cos(azimuths), jnp.sin(azimuths), jnp.zeros_like(azimuths)], axis=-1)
    # Subtracted coordinate by coordinate, not by matrix product, which some accelerators round to ten bits.
    relative = positions - jnp.mean(positions, axis=0, keepdims=True)
    advance = jnp.sum(towards_source[:, None] * relative[None], axis=-1) / speed_of_sound
    phase = 2 * jnp.pi * frequencies[:, None, None] * advance[None]
    return jax.lax.complex(jnp.cos(phase), jnp.sin(phase))


def _positions_of_shorthand(spec: str, shape: str, count: str, metres: str) -> np.ndarray:
    meaning = {"circular": "circular:M:DIAMETER", "linear": "linear:M:SPACING"}[shape]
    try:
        num_microphones, length = int(count), float(metres)
    except ValueError:
        raise InputError(f"{spec!r} must read {meaning}, with M a number of microphones and metres.") from None
    if not 2 <= num_microphones <= _MAX_MICROPHONES or not (math.isfinite(length) and length > 0):
        raise InputError(
            f"{spec!r} must read {meaning}, with M from 2 to {_MAX_MICROPHONES} and a positive length in metres."
        )
    positions = np.zeros((num_microphones, 3))
    if shape == "circular":
        azimuths = azimuth_grid(num_microphones)
        positions[:, 0], positions[:, 1] = np.cos(azimuths) * length / 2, np.sin(azimuths) * length / 2
    else:
        positions[:, 0] = (np.arange(num_microphones) - (num_microphones - 1) / 2) * length
    return positions


def _positions_of_file(path: Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(
            f"microphone positions: there is no file {str(path)!r}, and it does not read circular:M:DIAMETER "
            "or linear:M:SPACING."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"microphone positions: {str(path)!r} cannot be read as text ({error}).") from None
    rows: list[list[float]] = []
    may_be_header = True
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        fields = [field.strip() for field in text.split(",")] if "," in text else text.split()
        is_header, may_be_header = may_be_header and not any(map(_is_number, fields)), False
        if is_header:
            continue
        if len(fields) not in (2, 3) or not all(map(_is_number, fields)):
            raise InputError(f"{path}, line {number}: expected x y or x y z in metres, got {line.strip()!r}.")
        if rows and len(fields) != len(rows[0]):
            raise InputError(
                f"{path}, line {number}: {len(fields)} coordinates, but the lines before have {len(rows[0])}."
            )
        rows.append([float(field) for field in fields])
    if not rows:
        raise InputError(f"{path} holds no microphone positions: expected one line of x y or x y z in metres for each.")
    positions = np.array(rows)
    return np.pad(positions, ((0, 0), (0, 3 - positions.shape[1])))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
