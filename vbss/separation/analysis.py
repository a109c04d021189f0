"""The first half of a separation: transform, mixture model, masks, and directions where the array is known."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.bandwidth import empty_bands
from vbss.audio.diffuse import active_frames, diffuse_whitening, whitened
from vbss.audio.filters import normalize_bins
from vbss.audio.geometry import azimuth_grid, steering_vectors
from vbss.audio.noise_floor import level_above_floor
from vbss.audio.stft import STFT
from vbss.counting import MAX_SOURCES, count_sources
from vbss.inference import Status, fit
from vbss.models import LDACGMM
from vbss.models.cgmm_start import peak_directions
from vbss.pipeline import Analysis, Progress
from vbss.posteriors import AbstractPosterior
from vbss.program import Model
from vbss.separation.clock import Clock
from vbss.separation.doubts import doubtful_directions, doubtful_number
from vbss.settings import AUTO, Settings

_LEAST_WHOLE = 0.1  # of the frames that sound
_COUNTING_WINDOW = 0.064  # s
_FLOOR_WINDOW = 0.128  # s
# dB (`level_above_floor`): where less, a class of noise brought 0.8 dB on development scenes with white noise 20 dB
# below two sources and 0.6 dB among many voices 10 dB below them; with less noise, it took 0.2 dB.
_NOISY = 17.0


class Located(NamedTuple):
    """What the first half gives.

    Attributes:
        fields: of a `Localization`.
        stft: the transform.
        analysis: what an output starts from.
        places: where the sources are, for the next stretch of a long recording to start from: the posterior of their
            directions, or what `vbss.separation.blind.locate` says.
    """

    fields: dict[str, Any]
    stft: STFT
    analysis: Analysis
    places: Float[np.ndarray, "sources ..."]


def locate(
    recorded: ArrayRecording,
    num_sources: Any,
    settings: Settings,
    progress: Progress | None,
    start_directions: Float[np.ndarray, "sources directions"] | None = None,
) -> Located:
    """Masks and directions of the sources around an array whose microphones' positions are known.

    Args:
        num_sources: how many there are, or `AUTO`: they are counted (`vbss.counting`).
        start_directions: probabilities of the candidate directions, from which the mixture model starts; the sources
            keep this order. Where sources are counted, those stay that are taken for one. By default, peaks of the
            directions' histogram, and sources in the order of directions.
    """
    num_sources = settings.check_num_sources(num_sources)
    stft = settings.stft(recorded.sample_rate, recorded.samples.shape[1])
    positions, azimuths = recorded.microphone_positions, azimuth_grid(settings.num_directions)
    assert positions is not None
    clock, pipeline, counted = Clock({}), settings.pipeline, None
    with settings.in_precision():
        samples, is_lost = jnp.asarray(recorded.samples, float), jnp.asarray(recorded.is_lost)

        def analysed(stft: STFT, mixture_model: Any, num_sources: int, has_noise: bool = False) -> tuple[Any, ...]:
            whitening = diffuse_whitening(positions, stft.frequencies)
            geometry = (jnp.asarray(positions, float), whitening, jnp.asarray(azimuths, float))
            options = (mixture_model, has_noise, settings.loading, num_sources)
            return whitening, *_analysed(stft, samples, is_lost, *geometry, *options)

        def short(window: float, *options: Any) -> tuple[Any, ...]:
            return analysed(STFT.init(recorded.sample_rate, window, window / 4), *options)[2:]

        if num_sources == AUTO:
            window = min(settings.window, _COUNTING_WINDOW)
            most = min(MAX_SOURCES, settings.num_directions)
            start = None if start_directions is None else jnp.asarray(start_directions, float)
            counting = count_sources(*short(window, LDACGMM, 1), max_sources=most, start_directions=start)
            counted = clock("count", counting)
            if counted.solution.status is Status.interrupted:
                raise KeyboardInterrupt
            num_sources = counted.num_sources
            if start_directions is not None:
                start_directions = start_directions[np.sort(counted.classes[:num_sources])]
        has_noise = pipeline.has_noise
        if has_noise is None:
            window = min(settings.window, _FLOOR_WINDOW)
            has_noise = bool(_is_noisy(STFT.init(recorded.sample_rate, window, window / 4), samples, is_lost))
        found = analysed(stft, pipeline.mixture_model, num_sources, has_noise)
        whitening, mixture, model, data = clock("transform", found)
        start = None  # the model's own
        if start_directions is not None:
            start = clock("start", _given_start(model, data, jnp.asarray(start_directions, float)))
        elif pipeline.start_window is not None and settings.window > pipeline.start_window:
            start = clock("start", _short_start(model, data, *short(pipeline.start_window, LDACGMM, num_sources)))
        key = jax.random.key(settings.seed)
        solution = fit(
            model, data, settings.inference, key=key, start=start, max_steps=settings.max_steps, progress=progress
        )
        masks, direction_posterior = (
            np.asarray(probs) for probs in clock("mixture model", _probabilities(solution.posterior))
        )
    is_known = np.isfinite(direction_posterior).all(axis=1)
    directions = np.where(is_known, azimuths[np.argmax(direction_posterior, axis=1)], np.nan)
    order = np.arange(num_sources)
    if start_directions is None:
        order = np.argsort(directions % (2 * np.pi), kind="stable")
    directions, direction_posterior, masks = directions[order], direction_posterior[order], masks[..., order]
    fields = {
        "azimuths": azimuths,
        "direction_posterior": direction_posterior,
        "directions": directions,
        "masks": masks,
        "classes": order,
        "reference_microphone": int(recorded.channels[recorded.reference_microphone]),
        "settings": settings,
        "solution": solution,
        "warnings": (
            *recorded.warnings,
            *doubtful_directions(solution, direction_posterior, directions),
            *([] if counted is None else doubtful_number(counted.probabilities)),
        ),
        "seconds": clock.seconds,
        "number_probabilities": None if counted is None else counted.probabilities,
    }
    is_whole = ~stft.touched_frames(is_lost) if recorded.is_lost.any() else None
    analysis = Analysis(mixture, whitening, (recorded.reference_microphone,), is_whole)
    return Located(fields, stft, analysis, direction_posterior)


@eqx.filter_jit
def _analysed(
    stft: STFT,
    samples: Float[Array, "microphones samples"],
    is_lost: Bool[Array, " samples"],
    microphone_positions: Float[Array, "microphones 3"],
    whitening: Float[Array, "frequencies microphones microphones"],
    azimuths: Float[Array, " directions"],
    mixture_model: Any,
    has_noise: bool,
    loading: float,
    num_sources: int,
) -> tuple[Complex[Array, "frames frequencies microphones"], Model, tuple]:
    """The spectrogram, the model of the array, and the data that the model takes: whitened bins, and which count."""
    mixture, is_observed = transformed(stft, samples, is_lost)
    white = whitened(whitening, jnp.swapaxes(mixture, 0, 1))
    steering = whitened(whitening, steering_vectors(microphone_positions, azimuths, stft.frequencies))
    program = mixture_model.init(steering, num_sources, has_noise=has_noise, loading=loading)
    return mixture, program, (normalize_bins(white), is_observed)


def transformed(
    stft: STFT, samples: Float[Array, "microphones samples"], is_lost: Bool[Array, " samples"]
) -> tuple[Complex[Array, "frames frequencies microphones"], Bool[Array, "frequencies frames"]]:
    """The spectrogram, and which of its bins say something of the sources."""
    mixture = jnp.moveaxis(stft.forward(samples), 0, -1)
    is_active = active_frames(mixture)
    is_whole = is_active & ~stft.touched_frames(is_lost)
    # Where hardly a frame is whole, broken ones are better than nothing.
    is_sound = jnp.where(is_whole.mean() >= _LEAST_WHOLE * is_active.mean(), is_whole, is_active)
    return mixture, is_sound[None, :] & ~empty_bands(mixture)[:, None] & jnp.any(mixture != 0, -1).T


@eqx.filter_jit
def _is_noisy(
    stft: STFT, samples: Float[Array, "microphones samples"], is_lost: Bool[Array, " samples"]
) -> Bool[Array, ""]:
    """Whether so many bins hold nothing but noise that it should have a class of its own."""
    return level_above_floor(*transformed(stft, samples, is_lost)) < _NOISY


@eqx.filter_jit
def _given_start(model: Any, data: tuple, directions: Float[Array, "sources directions"]) -> dict[str, Array]:
    mixture, is_observed = data
    return model.given_directions(mixture, directions, is_observed)


@eqx.filter_jit
def _short_start(model: Any, data: tuple, short_model: Model, short_data: tuple) -> dict[str, Array]:
    """A start from the directions that a shorter window finds: in it, sounds overlap less.

    A long window holds more of the room's reverberation, and so separates better.
    """
    return _given_start(model, data, peak_directions(short_model, *short_data))


@eqx.filter_jit
def _probabilities(
    posterior: AbstractPosterior,
) -> tuple[Float[Array, "frames frequencies sources"], Float[Array, "sources directions"]]:
    """The masks and the directions' posterior, without the noise."""
    # The posterior of an indicator is a categorical distribution, which the general type does not say.
    masks = posterior["source"].probs  # pyright: ignore[reportAttributeAccessIssue]
    directions = posterior["direction"].probs  # pyright: ignore[reportAttributeAccessIssue]
    return jnp.swapaxes(masks, 0, 1)[..., : len(directions)], directions
