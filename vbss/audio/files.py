"""Sound files: reading, writing, resampling."""

import os
import secrets
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from vbss.audio.sound_files import SoundFiles
from vbss.errors import InputError

# Integer formats at their usual best; everything else is written as soundfile does by default.
_SUBTYPES = {"WAV": "FLOAT", "FLAC": "PCM_24"}


@dataclass(frozen=True)
class Recording:
    """Sound of one or more channels.

    Attributes:
        samples: float32 or float64, full scale is 1.
        sample_rate: Hz.

    Raises:
        InputError: unless the samples have that shape and type, are finite, and not all zero, and the rate is
            a positive integer.
    """

    samples: Float[np.ndarray, "channels samples"]
    sample_rate: int

    def __post_init__(self):
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))
        _check_samples(self.samples, "samples")
        if not self.samples.any():
            raise InputError("samples is silent: every sample is zero.")


def read_recording(*paths: str | Path) -> Recording:
    """The recording in a sound file (WAV, FLAC, OGG, ...), or the channels of several files one after the other.

    Samples are float64 if a file holds more than float32 does, else float32, at the files' own rate.

    Raises:
        InputError: if there is no such file, it is not a sound file, it is empty, silent or not finite, or several
            files differ in sample rate or length.
    """
    files = SoundFiles.open(*paths)
    samples = files.read()
    try:
        return Recording(samples, files.sample_rate)
    except InputError as error:
        raise InputError(f"{', '.join(map(str, paths))}: {error}") from error


def write_recording(path: str | Path, samples: Float[np.ndarray, "..."], sample_rate: int | np.integer) -> None:
    """Write samples of shape (channels, samples) or (samples,) as the kind of sound file the extension names.

    WAV is written as 32-bit float, FLAC with 24 bits. The file appears complete or not at all: it is written
    under a temporary name in the same folder and then renamed.

    Raises:
        InputError: if the samples are of another rank or type, empty, not finite, or beyond full scale in a
            format that would clip them; if the extension names no format, or the format does not take this
            rate or number of channels; or if the folder does not exist or cannot be written to.
    """
    path = Path(path)
    file_format = path.suffix[1:].upper()
    if file_format not in soundfile.available_formats() or file_format == "RAW":
        raise InputError(f"{str(path)!r}: the extension must name a sound format such as .wav or .flac.")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{str(path)!r} must name a file in an existing folder.")
    sample_rate = check_sample_rate(sample_rate)
    samples = samples[None] if samples.ndim == 1 else samples
    _check_samples(samples, "samples")
    subtype = _SUBTYPES.get(file_format, soundfile.default_subtype(file_format))
    peak = np.abs(samples).max()
    if subtype not in ("FLOAT", "DOUBLE") and peak > 1:
        raise InputError(
            f"{str(path)!r}: samples reach {peak:.3g} and would clip at 1 in this format; scale them or write .wav."
        )
    if peak > np.finfo(np.float32).max:
        raise InputError(f"{str(path)!r}: samples reach {peak:.3g}, which no 32-bit float holds; scale them.")
    # A plain name, not tempfile's: the file keeps the permissions that a newly written file has here.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        soundfile.write(temporary, samples.T, sample_rate, subtype=subtype, format=file_format)
        os.replace(temporary, path)
    except soundfile.SoundFileError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def resample(recording: Recording, sample_rate: int | np.integer) -> Recording:
    """The recording at another sample rate in Hz, band-limited, of the same dtype.

    Raises:
        InputError: if `sample_rate` is not a positive integer, or nothing audible is left of the recording.
    """
    sample_rate = check_sample_rate(sample_rate)
    if sample_rate == recording.sample_rate:
        return recording
    samples = soxr.resample(recording.samples.T, recording.sample_rate, sample_rate)
    return Recording(np.ascontiguousarray(samples.T), sample_rate)


def check_sample_rate(sample_rate: Any) -> int:
    """`sample_rate` in Hz as an `int`; an `InputError` if it is not a positive integer, of Python or of numpy."""
    if not isinstance(sample_rate, Integral) or isinstance(sample_rate, bool) or sample_rate < 1:
        raise InputError(f"sample_rate must be a positive integer in Hz, got {sample_rate!r}.")
    return int(sample_rate)


def _check_samples(samples: np.ndarray, name: str) -> None:
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.float32, np.float64):
        kind = getattr(samples, "dtype", type(samples).__name__)
        raise InputError(f"{name} must be a numpy array of float32 or float64, got {kind}.")
    if samples.ndim != 2:
        raise InputError(f"{name} must have shape (channels, samples), got {samples.shape}.")
    if samples.size == 0:
        raise InputError(f"{name} is empty: its shape is {samples.shape}.")
    is_finite = np.isfinite(samples)
    if not is_finite.all():
        channel, sample = np.argwhere(~is_finite)[0]
        raise InputError(f"{name} must be finite; channel {channel} is not at sample {sample} (counted from 0).")
