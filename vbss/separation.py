"""From a recording to its sources, or their directions, in one call: transform, model, inference, filter, sound."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from time import perf_counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, Real

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.diffuse import active_frames, diffuse_whitening, whitened
from vbss.audio.files import Recording
from vbss.audio.filters import normalize_bins
from vbss.audio.geometry import azimuth_grid, steering_vectors
from vbss.audio.stft import STFT
from vbss.inference import Solution, Status, fit
from vbss.models.cgmm_start import given_directions, peak_directions
from vbss.pipeline import Analysis, Progress, SumModel, Wiener
from vbss.posteriors import AbstractPosterior
from vbss.program import Model
from vbss.settings import Settings

_POOR = 5.0  # dB of expected SDR, below which a source is doubted


@dataclass(frozen=True)
class Localization:
    """What `localize` found; sources are in the order of their directions, from 0 to 2 pi.

    Attributes:
        azimuths: the candidate directions, rad, counter-clockwise from +x.
        direction_posterior: the posterior probability of each source's direction.
        directions: the most probable azimuth of each source, rad; nan if inference failed.
        masks: the posterior probability that a source owns a bin; equal for all sources in pauses.
        classes: which class of the mixture model's posterior each source is.
        reference_microphone: the channel of the recording that stands for it, counted from 0.
        settings: how the recording was analysed.
        solution: of the mixture model's inference, with its status and its trace of the bound.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    azimuths: Float[np.ndarray, " directions"]
    direction_posterior: Float[np.ndarray, "sources directions"]
    directions: Float[np.ndarray, " sources"]
    masks: Float[np.ndarray, "frames frequencies sources"]
    classes: Int[np.ndarray, " sources"]
    reference_microphone: int
    settings: Settings
    solution: Solution
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def solutions(self) -> dict[str, Solution]:
        """Of every model that was fitted, by its stage."""
        return {"mixture model": self.solution}


@dataclass(frozen=True)
class Separation(Localization):
    """What `separate` found: the sources' sounds beside their directions.

    Attributes:
        sources: each source as the reference microphone hears it, at the recording's rate, length and level.
        sample_rate: Hz.
        energy_shares: each source's share of the energy of all `sources`.
        sum_solution: of the sum model's inference, where the pipeline has one.
        expected_sdr: dB; how good the posterior of the sum model expects each source to be: the energy that it expects
            of the source, over that of its own uncertainty. Rather too high where the model does not fit.
    """

    sources: Float[np.ndarray, "sources samples"]
    sample_rate: int
    energy_shares: Float[np.ndarray, " sources"]
    sum_solution: Solution | None
    expected_sdr: Float[np.ndarray, " sources"] | None

    @property
    def solutions(self):
        return super().solutions | ({} if self.sum_solution is None else {"sum model": self.sum_solution})


def localize(
    recording: Recording,
    microphone_positions: Real[Array | np.ndarray, "microphones 3"],
    num_sources: int | np.integer,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Localization:
    """Find the directions of the sources in a recording of a microphone array: `separate` without the sounds.

    The arguments and the errors are those of `separate`, which has one more.
    """
    recorded = ArrayRecording.check(recording, microphone_positions)
    localization, _, _ = _localize(recorded, num_sources, Settings(**settings), progress)
    return Localization(**localization)


def separate(
    recording: Recording,
    microphone_positions: Real[Array | np.ndarray, "microphones 3"],
    num_sources: int | np.integer,
    *,
    reference_microphone: int | np.integer = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> Separation:
    """Separate and localise the sources in a recording of a microphone array.

    Bins are whitened by a diffuse sound field; the posterior of a mixture model, which leaves pauses out
    (`vbss.audio.active_frames`) and starts from the directions that a window of 64 ms shows, says which source owns
    each bin. From these masks starts a model in which sources add up (`vbss.models.LocalGaussianNMF`), whose posterior
    mean is the sources' sound. `vbss.Settings.model` names other pipelines, and `vbss.Pipeline` makes them. Everything
    runs at the recording's own rate, and its level does not matter. Channels without sound are left out and constant
    offsets removed; the result's `warnings` say so.

    Args:
        recording: one channel per microphone.
        microphone_positions: metres, in the order of the channels. A linear array hears no difference between the two
            sides of its axis, so of two mirrored azimuths either may be reported.
        num_sources: how many sources there are.
        reference_microphone: whose sound is separated, counted from 0.
        progress: handed on to `vbss.fit`, for the mixture model and then for the sum model.
        settings: fields of `vbss.Settings`, such as `max_steps=50`.

    Raises:
        InputError: before anything is compiled, if the microphones do not fit the channels, fewer than two channels
            have sound, two are equal, the recording is shorter than a window, or an argument is out of its range. How
            the inference ended is in the status of each of `Separation.solutions`.
    """
    recorded = ArrayRecording.check(recording, microphone_positions, reference_microphone)
    chosen = Settings(**settings)
    localization, stft, analysis = _localize(recorded, num_sources, chosen, progress)
    clock = _Clock(localization["seconds"])
    with chosen.in_precision():
        masks, key = jnp.asarray(localization["masks"]), jax.random.key(chosen.seed)
        output, doubts = chosen.pipeline.output, []
        if isinstance(output, SumModel) and not _is_usable(localization["solution"]):
            output = Wiener()
        sounds = output(analysis, masks, key=key, progress=progress)
        sum_solution = sounds.solution
        if sum_solution is not None:
            clock("sum model", sounds.spectrograms)
            doubts += _failures(sum_solution)
            if sum_solution.status is Status.nonfinite:
                sounds = Wiener()(analysis, masks, key=key)
                doubts.append("the sources are those of the mixture model, as the sum model failed.")
        samples = _samples(stft, sounds.spectrograms, recorded.samples.shape[1])
        sources = np.asarray(clock("filter", samples)).astype(recorded.samples.dtype)
    expected_sdr = None if sounds.expected_sdr is None else np.asarray(sounds.expected_sdr, np.float64)
    for number, ratio in enumerate([] if expected_sdr is None else expected_sdr, 1):
        if ratio < _POOR:
            doubts.append(f"source {number} is poorly separated: an SDR of {ratio:.1f} dB is expected.")
    energies = np.sum(np.square(sources, dtype=np.float64), axis=1)
    energy = np.sum(energies)
    localization["warnings"] += tuple(doubts)
    return Separation(
        **localization,
        sources=np.ldexp(sources, recorded.exponent),
        sample_rate=recorded.sample_rate,
        energy_shares=energies / energy if energy > 0 else np.full(len(sources), 1 / len(sources)),
        sum_solution=sum_solution,
        expected_sdr=expected_sdr,
    )


def _localize(
    recorded: ArrayRecording, num_sources: Any, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], STFT, Analysis]:
    """The fields of a `Localization`, and what the output needs."""
    num_sources = settings.check_num_sources(num_sources)
    stft = settings.stft(recorded.sample_rate, recorded.samples.shape[1])
    positions, azimuths = recorded.microphone_positions, azimuth_grid(settings.num_directions)
    clock, pipeline = _Clock({}), settings.pipeline
    with settings.in_precision():
        samples = jnp.asarray(recorded.samples, float)

        def analysed(stft: STFT) -> tuple[Any, ...]:
            whitening = diffuse_whitening(positions, stft.frequencies)
            geometry = (jnp.asarray(positions, float), whitening, jnp.asarray(azimuths, float))
            analysis = _analysed(stft, samples, *geometry, pipeline.mixture_model, settings.loading, num_sources)
            return whitening, *analysis

        whitening, mixture, model, data = clock("transform", analysed(stft))
        start = None  # the model's own
        if pipeline.start_window is not None and settings.window > pipeline.start_window:
            *_, short_model, short_data = analysed(
                STFT.init(recorded.sample_rate, pipeline.start_window, pipeline.start_window / 4)
            )
            start = clock("start", _short_start(model, data, short_model, short_data))
        key = jax.random.key(settings.seed)
        solution = fit(
            model, data, settings.inference, key=key, start=start, max_steps=settings.max_steps, progress=progress
        )
        masks, direction_posterior = (
            np.asarray(probs) for probs in clock("mixture model", _probabilities(solution.posterior))
        )
    is_known = np.isfinite(direction_posterior).all(axis=1)
    directions = np.where(is_known, azimuths[np.argmax(direction_posterior, axis=1)], np.nan)
    order = np.argsort(directions % (2 * np.pi), kind="stable")
    directions, direction_posterior, masks = directions[order], direction_posterior[order], masks[..., order]
    localization = {
        "azimuths": azimuths,
        "direction_posterior": direction_posterior,
        "directions": directions,
        "masks": masks,
        "classes": order,
        "reference_microphone": int(recorded.channels[recorded.reference_microphone]),
        "settings": settings,
        "solution": solution,
        "warnings": (*recorded.warnings, *_doubts(solution, direction_posterior, directions)),
        "seconds": clock.seconds,
    }
    return localization, stft, Analysis(mixture, whitening, recorded.reference_microphone)


@eqx.filter_jit
def _analysed(
    stft: STFT,
    samples: Float[Array, "microphones samples"],
    microphone_positions: Float[Array, "microphones 3"],
    whitening: Float[Array, "frequencies microphones microphones"],
    azimuths: Float[Array, " directions"],
    mixture_model: Any,
    loading: float,
    num_sources: int,
) -> tuple[Complex[Array, "frames frequencies microphones"], Model, tuple]:
    """The spectrogram, the model of the array, and the data that the model takes: whitened bins, and which count."""
    mixture = jnp.moveaxis(stft.forward(samples), 0, -1)
    is_observed = active_frames(mixture)[None, :] & jnp.any(mixture != 0, -1).T
    white = whitened(whitening, jnp.swapaxes(mixture, 0, 1))
    steering = whitened(whitening, steering_vectors(microphone_positions, azimuths, stft.frequencies))
    program = mixture_model.init(steering, num_sources, loading=loading)
    return mixture, program, (normalize_bins(white), is_observed)


@eqx.filter_jit
def _short_start(model: Model, data: tuple, short_model: Model, short_data: tuple) -> dict[str, Array]:
    """A start from the directions that a shorter window finds: in it, sounds overlap less.

    A long window holds more of the room's reverberation, and so separates better.
    """
    directions = peak_directions(short_model, *short_data)
    mixture, is_observed = data
    return given_directions(model, mixture, directions, is_observed)


@eqx.filter_jit
def _samples(
    stft: STFT, spectrograms: Complex[Array, "sources frames frequencies"], num_samples: int
) -> Float[Array, "sources {num_samples}"]:
    return stft.inverse(spectrograms, num_samples)


@eqx.filter_jit
def _probabilities(
    posterior: AbstractPosterior,
) -> tuple[Float[Array, "frames frequencies sources"], Float[Array, "sources directions"]]:
    """The masks and the directions' posterior."""
    source, direction = posterior["source"], posterior["direction"]
    # The posterior of an indicator is a categorical distribution, which the general type does not say.
    return jnp.swapaxes(source.probs, 0, 1), direction.probs  # pyright: ignore[reportAttributeAccessIssue]


def _doubts(solution: Solution, direction_posterior: np.ndarray, directions: np.ndarray) -> Iterator[str]:
    """Reasons to doubt what was inferred."""
    yield from _failures(solution)
    if solution.status is Status.nonfinite:
        return
    for source, probability in enumerate(direction_posterior.max(axis=1), 1):
        if probability < 0.5:
            yield f"the direction of source {source} is uncertain: the most probable one has {probability:.2f}."
    for first, second in combinations(range(len(directions)), 2):
        if directions[first] == directions[second]:
            yield f"sources {first + 1} and {second + 1} share one direction: they may be one source."


def _is_usable(solution: Solution) -> bool:
    return solution.status not in (Status.nonfinite, Status.interrupted)


def _failures(solution: Solution) -> Iterator[str]:
    if solution.status in (Status.bound_decreased, Status.nonfinite, Status.interrupted):
        yield solution.status.explanation


class _Clock:
    """Notes in `seconds`, at the end of each stage, how long it took."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds
        self._start = perf_counter()

    def __call__(self, stage: str, result: Any) -> Any:
        jax.block_until_ready(result)
        now = perf_counter()
        self.seconds[stage], self._start = now - self._start, now
        return result
