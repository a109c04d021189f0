"""A whole recording at once: its sources, or their directions, in one call."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Real

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.files import Recording
from vbss.audio.stft import STFT
from vbss.errors import InputError
from vbss.inference import Status
from vbss.pipeline import Progress, SumModel, Wiener
from vbss.separation import analysis, blind
from vbss.separation.analysis import Located
from vbss.separation.clock import Clock
from vbss.separation.doubts import failures, is_usable, poor_sources, too_many_sources
from vbss.separation.results import Localization, Separation, shares
from vbss.settings import ARRAY_MODELS, Settings


def localize(
    recording: Recording,
    microphone_positions: Real[Array | np.ndarray, "microphones 3"],
    num_sources: int | np.integer | str,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Localization:
    """Find the directions of the sources in a recording of a microphone array: `separate` without the sounds.

    The arguments and the errors are those of `separate`, which has more.
    """
    if microphone_positions is None:
        raise InputError("microphone_positions must be given for directions.")
    recorded, chosen = ArrayRecording.check(recording, microphone_positions), Settings(**settings).of_array(True)
    if chosen.pipeline.is_blind:
        raise InputError(f"model must be one of {', '.join(ARRAY_MODELS)} for directions, got {chosen.model!r}.")
    return Localization(**locate_recorded(recorded, num_sources, chosen, progress).fields)


def separate(
    recording: Recording,
    microphone_positions: Real[Array | np.ndarray, "microphones 3"] | None,
    num_sources: int | np.integer | str,
    *,
    reference_microphone: int | np.integer = 0,
    all_channels: bool = False,
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
            sides of its axis, so of two mirrored azimuths either may be reported. None if they are not known: then
            there are no directions, and sources are told apart by a model of any array (`vbss.models.CACGMM`).
        num_sources: how many sources there are; "auto" counts them (`vbss.counting.count_sources`), where the positions
            are known.
        reference_microphone: whose sound is separated, counted from 0.
        all_channels: whether the sources are wanted as every microphone hears them, too (`Separation.images`).
        progress: handed on to `vbss.fit`, for the mixture model and then for the sum model.
        settings: fields of `vbss.Settings`, such as `max_steps=50`.

    Raises:
        InputError: before anything is compiled, if the microphones do not fit the channels, fewer than two channels
            have sound, two are equal, the recording is shorter than a window, or an argument is out of its range. How
            the inference ended is in the status of each of `Separation.solutions`.
    """
    recorded = ArrayRecording.check(recording, microphone_positions, reference_microphone)
    chosen = Settings(**settings)
    separation = separate_recorded(recorded, num_sources, chosen, progress, all_channels=all_channels)
    if separation.images is None:
        return separation
    images = np.zeros((len(separation.sources), *recording.samples.shape), separation.images.dtype)
    images[:, recorded.channels] = separation.images
    return replace(separation, images=images)


def locate_recorded(
    recorded: ArrayRecording,
    num_sources: Any,
    settings: Settings,
    progress: Progress | None = None,
    start: Float[np.ndarray, "sources ..."] | None = None,
) -> Located:
    """The first half, by what is known of the array.

    Args:
        start: places from which the mixture model starts (`Located.places`), by default its own.
    """
    locate = blind.locate if settings.pipeline.is_blind else analysis.locate
    return locate(recorded, num_sources, settings, progress, start)


def separate_recorded(
    recorded: ArrayRecording,
    num_sources: Any,
    settings: Settings,
    progress: Progress | None = None,
    *,
    all_channels: bool = False,
    start: Float[np.ndarray, "sources ..."] | None = None,
) -> Separation:
    """`separate` of what was checked already; `images` are those of the channels that are left.

    Args:
        start: places from which the mixture model starts (`Located.places`), by default its own.
    """
    settings = settings.of_array(recorded.microphone_positions is not None)
    located = locate_recorded(recorded, num_sources, settings, progress, start)
    by_energy = settings.pipeline.is_blind
    separation = separate_located(recorded, located, settings, progress, all_channels=all_channels, by_energy=by_energy)
    doubts = too_many_sources(separation.energy_shares, len(recorded.channels))
    return replace(separation, warnings=(*separation.warnings, *doubts))


def separate_located(
    recorded: ArrayRecording,
    located: Located,
    settings: Settings,
    progress: Progress | None = None,
    *,
    all_channels: bool = False,
    by_energy: bool = False,
) -> Separation:
    """The second half: the sounds of sources whose masks are known.

    Args:
        by_energy: whether sources are wanted in the order of their energy, the strongest first, not in that of
            `located`.
    """
    fields, stft, analysed, _ = located
    clock = Clock(fields["seconds"])
    reference = analysed.microphones[0]
    if all_channels:
        others = [microphone for microphone in range(len(recorded.channels)) if microphone != reference]
        analysed = analysed._replace(microphones=(reference, *others))
    with settings.in_precision():
        masks, key = jnp.asarray(fields["masks"]), jax.random.key(settings.seed)
        output, doubts = settings.pipeline.output, []
        if isinstance(output, SumModel) and not is_usable(fields["solution"]):
            output = Wiener()
        sounds = output(analysed, masks, key=key, progress=progress)
        sum_solution = sounds.solution
        if sum_solution is not None:
            clock("sum model", sounds.spectrograms)
            doubts += failures(sum_solution)
            if sum_solution.status is Status.nonfinite:
                sounds = Wiener()(analysed, masks, key=key)
                doubts.append("the sources are those of the mixture model, as the sum model failed.")
        samples = _samples(stft, sounds.spectrograms, recorded.samples.shape[1])
        heard = np.asarray(clock("filter", samples)).astype(recorded.samples.dtype)
    expected_sdr = None if sounds.expected_sdr is None else np.asarray(sounds.expected_sdr, np.float64)
    energies = np.sum(np.square(heard[:, 0], dtype=np.float64), axis=1)
    if by_energy:
        order = np.argsort(-energies, kind="stable")
        heard, energies = heard[order], energies[order]
        expected_sdr = None if expected_sdr is None else expected_sdr[order]
        fields |= {"masks": fields["masks"][..., order], "classes": fields["classes"][order]}
    doubts += poor_sources([] if expected_sdr is None else expected_sdr)
    fields["warnings"] += tuple(doubts)
    return Separation(
        **fields,
        sources=np.ldexp(heard[:, 0], recorded.exponent),
        sample_rate=recorded.sample_rate,
        energy_shares=shares(energies),
        sum_solution=sum_solution,
        expected_sdr=expected_sdr,
        images=np.ldexp(heard[:, np.argsort(analysed.microphones)], recorded.exponent) if all_channels else None,
    )


@eqx.filter_jit
def _samples(
    stft: STFT, spectrograms: Complex[Array, "sources microphones frames frequencies"], num_samples: int
) -> Float[Array, "sources microphones {num_samples}"]:
    return stft.inverse(spectrograms, num_samples)
