"""A binaural recording at once: where its sources are and what each of them sounds like, in one call."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import combinations
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.audio import STFT, InterauralCues, Recording, noise_power, observed_bins, resample
from vbss.binaural.calibration import Calibration, check_binaural
from vbss.binaural.messl import infer_messl
from vbss.binaural.results import BinauralLocalization, BinauralSeparation
from vbss.binaural.settings import BinauralSettings
from vbss.binaural.vessl import infer_vessl
from vbss.errors import InputError, whole_number
from vbss.inference import Status
from vbss.models import MESSL
from vbss.models.affine_pieces import PiecewisePosterior
from vbss.pipeline import Analysis, Masking, Progress, SumModel
from vbss.scenes.head_geometry import direction_vectors
from vbss.separation.clock import Clock
from vbss.separation.doubts import failures, poor_sources
from vbss.separation.results import shares

_RATE = 16000  # Hz, of the analysis without a calibration, where the recording's is not below
_RADIUS = 0.0875 / 343.0  # s, of a sphere of 8.75 cm in the place of a head
_LEVEL_PRIOR = 3.0  # strength of the prior of MESSL-G
_MOST_SOURCES = 8
_NEAR = np.radians(10.0)


def localize_binaural(
    recording: Recording,
    num_sources: int | np.integer,
    calibration: Calibration | None = None,
    **settings: Any,
) -> BinauralLocalization:
    """Find where the sources of a binaural recording are: `separate_binaural` without the sounds.

    Arguments and errors are those of `separate_binaural`, but for `progress`: there is none to tell.
    """
    return _located(recording, num_sources, calibration, BinauralSettings(**settings)).result


def separate_binaural(
    recording: Recording,
    num_sources: int | np.integer,
    calibration: Calibration | None = None,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> BinauralSeparation:
    """Separate and localise the sources of a recording with the channels (left, right) of a head.

    With a calibration of the head (`vbss.calibrate`), VESSL infers azimuths and elevations together with masks; without
    one, MESSL infers delays and masks. From the masks starts a model in which sources add up.

    Args:
        recording: two channels, at the calibration's sample rate or above.
        num_sources: how many sources there are.
        calibration: of the head; a file made by `vbss calibrate` is read by `vbss.load`.
        progress: handed on to `vbss.fit` for the sum model.
        settings: fields of `vbss.BinauralSettings`, such as `model="vessl"`.

    Raises:
        InputError: if there are not two channels, an ear is silent, the rate is below the calibration's, the recording
            is shorter than a window, no bin is above the noise at both ears, or an argument is out of its range.
    """
    located = _located(recording, num_sources, calibration, BinauralSettings(**settings))
    result, stft, samples = located.result, located.cues.stft, located.samples
    output, clock = result.settings.output(result.model), Clock(dict(result.seconds))
    mixture = jnp.moveaxis(stft.forward(samples), 0, -1)
    masks = jnp.asarray(result.masks)
    even = jnp.full((*masks.shape[:1], 1, masks.shape[2]), 1 / masks.shape[2], masks.dtype)  # at 0 Hz
    masks = jnp.concatenate([even, masks], 1)
    identity = jnp.broadcast_to(jnp.eye(2, dtype=mixture.dtype), (mixture.shape[1], 2, 2))
    analysis, key, doubts = Analysis(mixture, identity, (0, 1)), jax.random.key(result.settings.seed), []
    if result.solution.status in (Status.nonfinite, Status.interrupted):
        output = Masking()
    sounds = output(analysis, masks, key=key, progress=progress)
    if isinstance(output, SumModel) and sounds.solution is not None:
        clock("sum model", sounds.spectrograms)
        doubts += failures(sounds.solution)
        if sounds.solution.status is Status.nonfinite:
            sounds = Masking()(analysis, masks, key=key)
            doubts.append("the sources are the masked mixture, as the sum model failed.")
    heard = np.asarray(clock("filter", _samples(stft, sounds.spectrograms, samples.shape[1])))
    images = _at_rate(heard, located.cues.sample_rate, recording)
    expected_sdr = None if sounds.expected_sdr is None else np.asarray(sounds.expected_sdr, np.float64)
    doubts += poor_sources([] if expected_sdr is None else expected_sdr)
    known = {field.name: getattr(result, field.name) for field in fields(result)}
    return BinauralSeparation(
        **known | {"warnings": (*result.warnings, *doubts), "seconds": clock.seconds},
        images=images,
        sample_rate=recording.sample_rate,
        energy_shares=shares(np.sum(np.square(heard, dtype=np.float64), axis=(1, 2))),
        sum_solution=sounds.solution,
        expected_sdr=expected_sdr,
    )


class _Located(NamedTuple):
    result: BinauralLocalization
    cues: InterauralCues
    samples: Float[Array, "2 samples"]


def _located(
    recording: Recording, num_sources: Any, calibration: Calibration | None, settings: BinauralSettings
) -> _Located:
    """Positions and masks."""
    num_sources = whole_number("num_sources", num_sources, 1, _MOST_SOURCES)
    model = settings.resolved(calibration is not None)
    if calibration is None or not model.startswith("vessl"):
        cues = InterauralCues(sample_rate=min(_RATE, recording.sample_rate))
    else:
        cues = calibration.cues
    check_binaural(recording, cues)
    peak = np.abs(recording.samples).max()  # what the cues do not depend on, but the range of float32 does
    samples = jnp.asarray(resample(recording, cues.sample_rate).samples / peak, jnp.float32)
    if samples.shape[1] < cues.stft.window_length:
        raise InputError(f"recording must last {cues.window} s or more, got {recording.samples.shape[1]} samples.")
    clock = Clock({})
    analysed = _analysed(cues, samples, settings.margin, settings.share, settings.reverberant)
    spectrogram, differences, is_observed = clock("cues", analysed)
    if calibration is not None and model.startswith("vessl"):
        found = _by_vessl(calibration, differences, is_observed, num_sources, settings)
    else:
        found = _by_messl(cues, spectrogram, differences[0], num_sources, settings)
    clock("cue model", found["masks"])
    known = {"model": model, "cues": cues, "settings": settings, "seconds": clock.seconds}
    return _Located(BinauralLocalization(**known, **found), cues, samples)


@eqx.filter_jit
def _analysed(
    cues: InterauralCues, samples: Float[Array, "2 samples"], margin: float, share: float, only_rising: bool
) -> tuple[Complex[Array, "2 frames f"], Float[Array, "c f frames"], Any]:
    spectrogram = cues.analyse(samples)
    noise = noise_power(spectrogram)
    is_observed = observed_bins(spectrogram, noise, margin=margin, share=share, only_rising=only_rising)
    return spectrogram, cues.cues(spectrogram), is_observed


def _by_vessl(
    calibration: Calibration, differences: Array, is_observed: Array, num_sources: int, settings: BinauralSettings
) -> dict[str, Any]:
    if not bool(is_observed.any()):
        raise InputError(
            "recording has no bin that is above the noise at both ears: is one of the channels nearly silent, or is it "
            "all noise? A smaller margin lets more bins count."
        )
    key = jax.random.key(settings.seed)
    solution = infer_vessl(calibration, differences, is_observed, num_sources, settings.preset, key=key)
    vessl: Any = solution.model
    positions = _positions(vessl, solution.posterior, (differences, is_observed), calibration.map_variance)
    peaks = np.asarray(positions.peak, np.float64)
    order = np.argsort(-peaks[:, 0], kind="stable")
    positions = PiecewisePosterior(*(part[order] for part in positions))
    peaks = peaks[order]
    # Pieces are linear, and where a head tells little of elevations the peak of one may lie beyond a pole.
    elevations = np.clip(peaks[:, 1], -np.pi / 2, np.pi / 2) if calibration.has_elevations else None
    doubts = [*failures(solution), *_same_place(peaks)]
    masks = np.swapaxes(np.asarray(vessl.masks(solution.posterior, differences)), 0, 1)[..., order]
    return {
        "azimuths": peaks[:, 0],
        "elevations": elevations,
        "positions": positions,
        "delays": None,
        "delay_grid": None,
        "delay_probs": None,
        "masks": masks,
        "solution": solution,
        "warnings": tuple(doubts),
    }


@eqx.filter_jit
def _positions(vessl: Any, posterior: Any, data: tuple, map_variance: Array) -> PiecewisePosterior:
    return vessl.located(posterior, *data, map_variance)


def _same_place(peaks: Float[np.ndarray, "n l"]) -> Iterator[str]:
    """Sources that may be one."""
    vectors = direction_vectors(peaks[:, 0], peaks[:, 1] if peaks.shape[1] == 2 else np.zeros(len(peaks)))
    for first, second in combinations(range(len(peaks)), 2):
        if vectors[first] @ vectors[second] > np.cos(_NEAR):
            yield f"sources {first + 1} and {second + 1} are less than 10 degrees apart: they may be one source."


def _by_messl(
    cues: InterauralCues, spectrogram: Array, level_difference: Array, num_sources: int, settings: BinauralSettings
) -> dict[str, Any]:
    left, right = spectrogram
    phase_difference = jnp.angle(left * right.conj()).T
    model = MESSL.init(
        np.asarray(cues.frequencies),
        num_sources,
        has_garbage=settings.has_garbage,
        pseudo_count=settings.pseudo_count,
    )
    found = infer_messl(
        model,
        (phase_difference, level_difference),
        num_steps=settings.max_steps,
        level_prior=_LEVEL_PRIOR if settings.has_garbage else None,
    )
    delays = np.asarray(found.delays, np.float64)
    order = np.argsort(-delays, kind="stable")
    doubts = [] if found.status is Status.max_steps else [found.status.explanation]
    return {
        "azimuths": _lateral_angles(delays[order]),
        "elevations": None,
        "positions": None,
        "delays": delays[order],
        "delay_grid": np.asarray(model.delays, np.float64),
        "delay_probs": np.asarray(found.delay_probs, np.float64)[order],
        "masks": np.swapaxes(np.asarray(found.masks), 0, 1)[..., order],
        "solution": found,
        "warnings": tuple(doubts),
    }


def _lateral_angles(delays: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The inverse of Woodworth's law, delay = radius (angle + sin angle)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 721)
    return np.interp(delays, _RADIUS * (angles + np.sin(angles)), angles)


@eqx.filter_jit
def _samples(
    stft: STFT, spectrograms: Complex[Array, "sources 2 frames frequencies"], num_samples: int
) -> Float[Array, "sources 2 {num_samples}"]:
    return stft.inverse(spectrograms, num_samples)


def _at_rate(
    heard: Float[np.ndarray, "sources 2 samples"], sample_rate: int, recording: Recording
) -> Float[np.ndarray, "sources 2 {recording.samples.shape[1]}"]:
    """The images at the recording's rate, length, level and precision."""
    num_samples, level = recording.samples.shape[1], np.abs(recording.samples).max()
    images = np.zeros((*heard.shape[:2], num_samples), recording.samples.dtype)
    if not np.isfinite(heard).all():  # of an inference that failed
        return np.full_like(images, np.nan)
    for image, of_source in zip(images, heard, strict=True):
        if of_source.any():
            sound = resample(Recording(of_source, sample_rate), recording.sample_rate).samples
            length = min(num_samples, sound.shape[1])
            image[:, :length] = level * sound[:, :length]
    return images
