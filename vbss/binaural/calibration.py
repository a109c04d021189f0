"""What a head does to sound, learnt from sounds of known directions."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vbss.audio import InterauralCues, Recording
from vbss.audio.files import resample
from vbss.errors import InputError, whole_number
from vbss.inference import EM, fit
from vbss.models import PPAM
from vbss.scenes import HeadResponses

_DIRECTIONS_PER_PIECE = {1: 7, 2: 5}  # of azimuths, and of azimuths and elevations
_FEWEST_PIECES = 3
_STEPS = 100
_FEWEST_DIRECTIONS = 4
_SAME = 1e-6  # rad, by which elevations that are the same may differ in a file


class Calibration(eqx.Module):
    """A head: which cues are heard, and how they depend on the direction.

    `vbss.save` and `vbss.load` keep it in a file.

    Attributes:
        cues: how recordings are analysed.
        maps: from (azimuth, elevation) in rad, or the azimuth alone, to the cues of `cues.is_cue` read row by row; of
            growing numbers of pieces, the finest last.
        map_variance: how wrong the finest map is at directions that it was not fitted to (`PPAM.left_out_variance`).
        directions: that it was learnt from, rad.
        name: of the head.
    """

    cues: InterauralCues = eqx.field(static=True)
    maps: tuple[PPAM, ...]
    map_variance: Float[Array, " d"]
    directions: Float[Array, "n l"]
    name: str = eqx.field(static=True, default="")

    @property
    def ppam(self) -> PPAM:
        """The finest map."""
        return self.maps[-1]

    @property
    def has_elevations(self) -> bool:
        return self.directions.shape[1] == 2


def calibrate(
    heads: HeadResponses,
    cues: InterauralCues | None = None,
    *,
    num_pieces: int | Sequence[int] | None = None,
    seconds: float = 1.0,
    ridge: float = 1e-3,
    seed: int = 0,
) -> Calibration:
    """Learn a head from its impulse responses: the cues of white noise from each direction.

    Args:
        heads: the directions to learn from. Azimuths should not go around the back, where they jump by a turn; take
            `heads.within(...)`.
        cues: which cues, at which sample rate; by default level and phase differences at 16 kHz.
        num_pieces: of the map, or of several, growing; by default one for 5 directions, or for 7 azimuths
            of one elevation.
        seconds: length of the noise.
        ridge: see `vbss.models.PPAM`.
        seed: of the noise and of the clusters that the maps start from.

    Raises:
        InputError: for fewer than 4 directions, or more pieces than directions.
    """
    cues = InterauralCues() if cues is None else cues
    values = heads.calibration_cues(cues, seconds=seconds, seed=seed)
    directions = np.stack([heads.azimuths, heads.elevations], -1)
    return calibrate_from_cues(directions, values, cues, num_pieces=num_pieces, ridge=ridge, seed=seed, name=heads.name)


def calibrate_from_recordings(
    recordings: Sequence[tuple[Recording, float, float]],
    cues: InterauralCues | None = None,
    *,
    num_pieces: int | Sequence[int] | None = None,
    ridge: float = 1e-3,
    seed: int = 0,
    name: str = "",
) -> Calibration:
    """Learn a head, and the room around it, from recordings of stationary sound, best white noise, one a direction.

    Args:
        recordings: each with its azimuth and elevation, rad (`vbss.scenes.read_calibration_recordings`).
        cues, num_pieces, ridge, seed: as of `calibrate`.

    Raises:
        InputError: for a recording of other than two channels or of a sample rate below the cues'.
    """
    cues = InterauralCues() if cues is None else cues
    _check_count(len(recordings))
    temporal_mean = jax.jit(cues.temporal_mean)
    values = []
    for recording, _, _ in recordings:
        check_binaural(recording, cues)
        values.append(np.asarray(temporal_mean(resample(recording, cues.sample_rate).samples)))
    directions = np.array([direction for _, *direction in recordings]).reshape(-1, 2)
    return calibrate_from_cues(
        directions, np.stack(values), cues, num_pieces=num_pieces, ridge=ridge, seed=seed, name=name
    )


def calibrate_from_cues(
    directions: Float[np.ndarray, "n 2"],
    values: Float[np.ndarray, "n channels f"],
    cues: InterauralCues,
    *,
    num_pieces: int | Sequence[int] | None = None,
    ridge: float = 1e-3,
    seed: int = 0,
    name: str = "",
) -> Calibration:
    """Learn a head from the mean cues of some directions (azimuth, elevation), rad; as `calibrate`.

    Where all elevations are the same, they are left out.
    """
    _check_count(len(directions))
    if np.ptp(directions[:, 1]) < _SAME:
        directions = directions[:, :1]
    default = max(_FEWEST_PIECES, round(len(directions) / _DIRECTIONS_PER_PIECE[directions.shape[1]]))
    numbers = [default] if num_pieces is None else np.atleast_1d(np.asarray(num_pieces)).tolist()
    numbers = [whole_number("num_pieces", number, 1, len(directions)) for number in numbers]
    if not numbers or sorted(set(numbers)) != numbers:
        raise InputError(f"num_pieces must grow, got {numbers}.")
    positions = jnp.asarray(directions, jnp.float32)
    present = jnp.asarray(values.reshape(len(values), -1)[:, np.asarray(cues.is_cue).reshape(-1)], jnp.float32)
    maps = fit_maps(positions, present, numbers, ridge=ridge, key=jax.random.key(seed))
    map_variance = maps[-1].left_out_variance(positions, present)
    return Calibration(cues, tuple(maps), map_variance, positions, name)


def fit_maps(
    positions: Float[Array, "n l"],
    cues: Float[Array, "n d"],
    num_pieces: Sequence[int],
    *,
    is_observed: Bool[Array, "n d"] | None = None,
    ridge: float = 1e-3,
    key: Array | None = None,
) -> list[PPAM]:
    """The map fitted with each number of pieces, by exact EM from clusters of the positions."""
    key = jax.random.key(0) if key is None else key
    data = (positions, cues) if is_observed is None else (positions, cues, is_observed)
    maps = []
    for number in num_pieces:
        model = PPAM.init(positions, cues, number, is_observed=is_observed, ridge=ridge)
        found = fit(model, data, EM(), key=key, max_steps=_STEPS).model
        assert isinstance(found, PPAM)
        maps.append(found)
    return maps


def held_out_scores(
    maps: Sequence[PPAM], positions: Float[Array, "n l"], cues: Float[Array, "n d"]
) -> Float[np.ndarray, " maps"]:
    """The mean log likelihood, nats, of pairs that the maps were not fitted to: the highest is the number to take."""
    return np.array([float(ppam.log_likelihood(positions, cues).mean()) for ppam in maps])


def _check_count(count: int) -> None:
    if count < _FEWEST_DIRECTIONS:
        raise InputError(f"a calibration needs at least {_FEWEST_DIRECTIONS} directions, got {count}.")


def check_binaural(recording: Recording, cues: InterauralCues) -> None:
    """Raise InputError where a recording is not one of two ears at the sample rate of the cues or above."""
    if len(recording.samples) != 2:
        raise InputError(f"recording must have two channels (left, right), got {len(recording.samples)}.")
    if recording.sample_rate < cues.sample_rate:
        raise InputError(
            f"recording has a sample rate of {recording.sample_rate} Hz, below the {cues.sample_rate} Hz of the "
            "calibration: what it lacks cannot be compared. Calibrate at its own rate or below."
        )
    silent = [ear for ear, samples in zip(("left", "right"), recording.samples, strict=True) if not samples.any()]
    if silent:
        raise InputError(f"recording is silent at the {silent[0]} ear.")
