"""Sound files that are read piece by piece."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from vbss.errors import InputError

# The usual formats of recordings, by which sound files are known in a folder.
SOUND_SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav")

# Subtypes of sound files whose samples float32 cannot hold exactly.
_DOUBLE_SUBTYPES = ("DOUBLE", "PCM_32")


@dataclass(frozen=True)
class SoundFiles:
    """The channels of a sound file, or of several files of one length one after the other.

    Attributes:
        paths: of the files.
        sample_rate: Hz.
        num_channels: of all files together.
        num_samples: of each channel.
        dtype: of the samples: float64 where a file holds more than float32 does.
    """

    paths: tuple[Path, ...]
    sample_rate: int
    num_channels: int
    num_samples: int
    dtype: np.dtype

    @classmethod
    def open(cls, *paths: str | Path) -> "SoundFiles":
        """Look at the files' headers.

        Raises:
            InputError: if there is no such file, it is not a sound file, it is empty, or several files differ in sample
                rate or length.
        """
        if not paths:
            raise InputError("at least one path is needed.")
        # Under the names the user gave: a message repeats them.
        names, headers = [str(path) for path in paths], [_header(Path(path)) for path in paths]
        rate, length = headers[0].samplerate, headers[0].frames
        for name, header in zip(names, headers, strict=True):
            if header.samplerate != rate:
                raise InputError(
                    f"{names[0]!r} has a sample rate of {rate} Hz, but {name!r} of {header.samplerate} Hz."
                )
            if header.frames != length:
                raise InputError(f"{names[0]!r} has {length} samples, but {name!r} has {header.frames}.")
        num_channels = sum(header.channels for header in headers)
        if length == 0:
            raise InputError(f"{', '.join(names)}: samples is empty: its shape is {(num_channels, 0)}.")
        is_double = any(header.subtype in _DOUBLE_SUBTYPES for header in headers)
        dtype = np.dtype(np.float64 if is_double else np.float32)
        return cls(tuple(Path(path) for path in paths), rate, num_channels, length, dtype)

    def read(self, start: int = 0, stop: int | None = None) -> Float[np.ndarray, "channels samples"]:
        """The samples from `start` up to, but without, `stop` (the end).

        Raises:
            InputError: if a file cannot be read, or ends before it should.
        """
        stop = self.num_samples if stop is None else stop
        return np.concatenate([_samples(path, start, stop, self.dtype) for path in self.paths])

    def pieces(self, length: int) -> Iterator[Float[np.ndarray, "channels samples"]]:
        """All samples in order, `length` at a time; the last piece may be shorter."""
        for start in range(0, self.num_samples, length):
            yield self.read(start, min(start + length, self.num_samples))


def _header(path: Path) -> soundfile._SoundFileInfo:
    if not path.is_file():
        raise InputError(f"there is no sound file {str(path)!r}.")
    with _told(path):
        return soundfile.info(path)


def _samples(path: Path, start: int, stop: int, dtype: np.dtype) -> Float[np.ndarray, "channels samples"]:
    with _told(path), soundfile.SoundFile(path) as file:
        file.seek(start)
        name = "float64" if dtype == np.float64 else "float32"
        samples = file.read(stop - start, dtype=name, always_2d=True).T
    if samples.shape[1] != stop - start:
        raise InputError(f"{str(path)!r} ends at sample {start + samples.shape[1]}, and its header says later.")
    return np.ascontiguousarray(samples)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Says in one sentence which file could not be read."""
    try:
        yield
    # A TypeError is soundfile's answer to headerless files, which it takes for raw samples.
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a sound file ({error}).") from error
