"""From a recording to its sources in one call: transform, model, inference, filter, sound."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from numbers import Integral
from time import perf_counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Real

from vbss.audio.diffuse import active_frames, diffuse_whitening
from vbss.audio.files import Recording
from vbss.audio.filters import multichannel_wiener, normalize_bins
from vbss.audio.geometry import azimuth_grid, check_microphone_positions, steering_vectors
from vbss.audio.stft import STFT
from vbss.errors import InputError
from vbss.inference import EM, Solution, fit
from vbss.models import LDACGMM

_LOADING = 1e-4  # relative white noise that the model adds to each whitened bin: what float32 bears


@dataclass(frozen=True)
class Separation:
    """What `separate` found.

    Attributes:
        sources: each source as the reference microphone hears it, at the recording's rate and length.
        sample_rate: Hz.
        masks: the posterior probability that a source owns a bin.
        azimuths: the candidate directions, rad, counter-clockwise from +x.
        direction_posterior: the posterior probability of each source's direction.
        directions: the most probable azimuth of each source, rad.
        energy_shares: each source's share of the energy of all `sources`.
        solution: the inference's own result, with its status and its trace of the bound.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    sources: Float[np.ndarray, "sources samples"]
    sample_rate: int
    masks: Float[np.ndarray, "frames frequencies sources"]
    azimuths: Float[np.ndarray, " directions"]
    direction_posterior: Float[np.ndarray, "sources directions"]
    directions: Float[np.ndarray, " sources"]
    energy_shares: Float[np.ndarray, " sources"]
    solution: Solution
    seconds: dict[str, float]


def separate(
    recording: Recording,
    microphone_positions: Real[Array | np.ndarray, "microphones 3"],
    num_sources: int | np.integer,
    *,
    reference_microphone: int | np.integer = 0,
    window: float = 0.064,
    hop: float = 0.016,
    num_directions: int | np.integer = 72,
    max_steps: int | np.integer = 30,
    seed: int | np.integer = 0,
    progress: Callable[[int, int, float], Any] | None = None,
) -> Separation:
    """Separate and localise the sources in a recording of a microphone array.

    Bins are whitened by a diffuse sound field and pauses left out (`vbss.audio.active_frames`); the model is
    `vbss.models.LDACGMM`, inferred by `vbss.EM` with at most `max_steps` steps from the random `seed`; the sources are
    then filtered out by `vbss.audio.multichannel_wiener`. Everything runs at the recording's own rate, and its level
    does not matter.

    `microphone_positions` are in metres, in the order of the channels; `window` and `hop` of the transform in
    seconds; `num_directions` candidate azimuths lie evenly on the circle. A linear array hears no difference
    between the two sides of its axis, so of two mirrored azimuths either may be reported. `progress` is
    handed on to `vbss.fit`.

    Raises:
        InputError: before anything is compiled, if the microphones do not fit the channels, a channel is
            silent or equal to another, the recording is shorter than a window, or a number is out of its range. How
            the inference ended is in `Separation.solution.status`.
    """
    if not isinstance(recording, Recording):
        raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
    num_channels, num_samples = recording.samples.shape
    # Counted before `check_microphone_positions`, which compares each with each.
    shape = getattr(microphone_positions, "shape", ())
    if len(shape) == 2 and shape[0] != num_channels:
        raise InputError(
            f"microphone_positions holds {shape[0]} microphones, but recording has {num_channels} channels."
        )
    check_microphone_positions(microphone_positions)
    positions = np.asarray(microphone_positions, np.float64)
    is_silent = ~recording.samples.any(axis=1)
    if is_silent.any():
        channels = ", ".join(map(str, np.flatnonzero(is_silent)))
        raise InputError(f"recording is silent in channel {channels} (counted from 0): is the microphone connected?")
    _check_channels_differ(recording.samples)
    num_directions = _whole_number("num_directions", num_directions, 1)
    num_sources = _whole_number("num_sources", num_sources, 1, num_directions)
    reference_microphone = _whole_number("reference_microphone", reference_microphone, 0, num_channels - 1)
    max_steps = _whole_number("max_steps", max_steps, 1)
    seed = _whole_number("seed", seed, 0, 2**32 - 1)
    if window * recording.sample_rate >= num_samples + 0.5:  # before a window of that length is made
        raise InputError(
            f"recording has {num_samples} samples ({num_samples / recording.sample_rate:.3g} s); at "
            f"least one window ({window} s) is needed."
        )
    stft = STFT.init(recording.sample_rate, window, hop)

    clock = _Clock()
    # A power of two brings the peak to order one without rounding: squares then stay in the range of float32.
    _, exponent = np.frexp(np.abs(recording.samples).max())
    mixture = clock("transform", _transform(stft, jnp.asarray(np.ldexp(recording.samples, -exponent))))
    active = active_frames(np.asarray(mixture))
    azimuths = azimuth_grid(num_directions)
    # In the data's precision, which may be lower than JAX's default.
    whitening = diffuse_whitening(positions, stft.frequencies).astype(mixture.dtype)
    steering = steering_vectors(positions, azimuths, stft.frequencies).astype(mixture.dtype)
    model = LDACGMM.init(_whitened(whitening, steering), num_sources, loading=_LOADING)
    data = normalize_bins(_whitened(whitening, jnp.swapaxes(mixture[active], 0, 1)))
    clock("model", (data, eqx.filter(model, eqx.is_array)))
    solution = fit(model, data, EM(), key=jax.random.key(seed), max_steps=max_steps, progress=progress)
    # A pause belongs to all sources alike.
    probs = jnp.swapaxes(_probabilities(solution, "source"), 0, 1)
    masks = jnp.full((*mixture.shape[:2], num_sources), 1 / num_sources, probs.dtype).at[active].set(probs)
    direction_posterior = _probabilities(solution, "direction")
    clock("inference", (masks, direction_posterior))
    sources = clock("filter", _filter(stft, mixture, masks, reference_microphone, num_samples))

    sources, masks, direction_posterior = (np.asarray(a) for a in (sources, masks, direction_posterior))
    energies = np.sum(np.square(sources, dtype=np.float64), axis=1)
    energy = np.sum(energies)
    return Separation(
        sources=np.ldexp(sources, exponent),
        sample_rate=recording.sample_rate,
        masks=masks,
        azimuths=azimuths,
        direction_posterior=direction_posterior,
        directions=azimuths[np.argmax(direction_posterior, axis=1)],
        energy_shares=energies / energy if energy > 0 else np.full(num_sources, 1 / num_sources),
        solution=solution,
        seconds=clock.seconds,
    )


@eqx.filter_jit
def _transform(stft: STFT, samples: Float[Array, "channels samples"]) -> Complex[Array, "frames frequencies channels"]:
    return jnp.moveaxis(stft.forward(samples), 0, -1)


def _whitened(
    whitening: Complex[Array, "frequencies microphones microphones"],
    vectors: Complex[Array, "frequencies any microphones"],
) -> Complex[Array, "frequencies any microphones"]:
    return jnp.einsum("fmn,fan->fam", whitening, vectors, precision="highest")


@eqx.filter_jit
def _filter(
    stft: STFT,
    mixture: Complex[Array, "frames frequencies channels"],
    masks: Float[Array, "frames frequencies sources"],
    reference_microphone: int,
    num_samples: int,
) -> Float[Array, "sources {num_samples}"]:
    return stft.inverse(multichannel_wiener(mixture, masks, reference_microphone), num_samples)


def _probabilities(solution: Solution, site: str) -> Float[Array, "*plates states"]:
    # The posterior of an indicator is a categorical distribution, which the general type does not say.
    return solution.posterior[site].probs  # pyright: ignore[reportAttributeAccessIssue]


class _Clock:
    """Notes in `seconds`, at the end of each stage, how long it took."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._start = perf_counter()

    def __call__(self, stage: str, result: Any) -> Any:
        jax.block_until_ready(result)
        now = perf_counter()
        self.seconds[stage], self._start = now - self._start, now
        return result


def _check_channels_differ(samples: Float[np.ndarray, "channels samples"]) -> None:
    first_with: dict[bytes, int] = {}
    for channel, sound in enumerate(samples):
        first = first_with.setdefault(sha256(sound.tobytes()).digest(), channel)
        if first != channel:
            raise InputError(
                f"recording holds the same sound in channels {first} and {channel} (counted from 0): "
                "each needs a microphone of its own."
            )


def _whole_number(name: str, value: Any, low: int, high: int | None = None) -> int:
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or int(value) < low or (high is not None and int(value) > high):
        limits = f"{low} or more" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} must be a whole number, {limits}, got {value!r}.")
    return int(value)
