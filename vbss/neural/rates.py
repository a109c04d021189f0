"""Between a recording's rate and the rate of the sound that a network knows."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from vbss.audio import STFT, Recording, resample
from vbss.audio.faults import without_offsets
from vbss.errors import InputError


def at_rate_of(recording: Recording, stft: STFT) -> Float[np.ndarray, "channels samples"]:
    """The samples at the transform's rate, without constant offsets, which are no sound.

    Raises:
        InputError: if the recording is at a lower one, shorter than a window, or constant.
    """
    if recording.sample_rate < stft.sample_rate:
        raise InputError(
            f"recording must be at {stft.sample_rate} Hz or more, for which the network was trained, got "
            f"{recording.sample_rate} Hz."
        )
    samples = without_offsets(recording.samples)
    if not samples.any():
        raise InputError("recording holds no sound: every channel is constant.")
    samples = resample(Recording(samples, recording.sample_rate), stft.sample_rate).samples
    if samples.shape[1] < stft.window_length:
        shortest = stft.window_length / stft.sample_rate
        raise InputError(f"recording must last {shortest} s or more, got {recording.samples.shape[1]} samples.")
    return samples


def band_warnings(recording: Recording, stft: STFT) -> Iterator[str]:
    """What of the recording a network does not hear, a sentence."""
    if recording.sample_rate > stft.sample_rate:
        half = stft.sample_rate / 2000
        yield f"the network works at {stft.sample_rate} Hz: what lies above {half:g} kHz is in no source."


def as_recorded(
    sounds: Float[np.ndarray, "sounds samples"], sample_rate: int, recording: Recording
) -> Float[np.ndarray, "sounds recorded"]:
    """At the recording's rate, length and precision; what lies above half of `sample_rate` is not there."""
    found = np.zeros((len(sounds), recording.samples.shape[1]), recording.samples.dtype)
    for own, sound in zip(found, sounds, strict=True):
        if sound.any():
            resampled = resample(Recording(sound[None], sample_rate), recording.sample_rate).samples[0]
            length = min(len(own), len(resampled))
            own[:length] = resampled[:length]
    return found
