"""Corpora of recorded mixtures: users' own files of one array, of which nothing else needs to be known."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from vbss.audio import STFT, Recording, resample
from vbss.audio.sound_files import SOUND_SUFFIXES, SoundFiles
from vbss.errors import InputError, positive, whole_number
from vbss.scenes.corpus import read_table
from vbss.training.simulated import spectrogram


class _Stretch(NamedTuple):
    """A part of a file, in seconds."""

    file: Path
    begin: float


class RecordedMixtures:
    """A corpus of `vbss.train`: items are spectrograms of stretches of sound files, complex64 (F, T, M).

    Only what is asked for is read. Files must have the same number of channels, and may be of any length and rate; what
    is shorter than a stretch, and what is left of a file after its last one, is not used.

    Attributes:
        stretches: which they are, in order.
        seconds: length of each.
        stft: of their rate, to which files are resampled.
        num_channels: of all files.
    """

    def __init__(self, files: Sequence[str | Path], *, seconds: float = 2.0, stft: STFT | None = None):
        """Stretches of files.

        Args:
            files: sound files of one channel per microphone.
            seconds: length of a stretch.
            stft: by default of windows of 64 ms every 16 ms, at 8000 Hz.

        Raises:
            InputError: if there is no file, one cannot be read or has other channels than the first or a lower rate
                than the transform, or none is as long as a stretch.
        """
        self.seconds, self.stft = positive("seconds", seconds), STFT.init(8000) if stft is None else stft
        if self.seconds * self.stft.sample_rate < self.stft.window_length:
            shortest = self.stft.window_length / self.stft.sample_rate
            raise InputError(f"seconds must be at least {shortest}, the length of a window, got {self.seconds}.")
        opened = {Path(file): SoundFiles.open(file) for file in files}
        if not opened:
            raise InputError("files must not be empty.")
        self.num_channels = next(iter(opened.values())).num_channels
        for file, sound in opened.items():
            if sound.num_channels != self.num_channels:
                raise InputError(
                    f"files must have the same number of channels: {str(file)!r} has {sound.num_channels}, the first "
                    f"{self.num_channels}."
                )
            if sound.sample_rate < self.stft.sample_rate:
                raise InputError(
                    f"files must be at {self.stft.sample_rate} Hz or more, {str(file)!r} is at {sound.sample_rate} Hz."
                )
        self.stretches = tuple(
            _Stretch(file, place * self.seconds)
            for file, sound in opened.items()
            for place in range(int(sound.num_samples / sound.sample_rate / self.seconds + 1e-9))
        )
        if not self.stretches:
            raise InputError(f"no file is as long as a stretch of {self.seconds} s.")

    @classmethod
    def read(
        cls, source: str | Path, *, split: str | None = None, seconds: float = 2.0, stft: STFT | None = None
    ) -> "RecordedMixtures":
        """The files that a manifest names, or those below a folder.

        A manifest is a CSV file with the column `file`, or `mixture_path` as those of LibriMix have it, relative to
        itself, and perhaps `split`.

        Args:
            source: the manifest or the folder.
            split: which lines of the manifest count; by default all.
            seconds, stft: see the class.

        Raises:
            InputError: as the class does, or if there is neither, or the manifest lacks a column.
        """
        source = Path(source)
        if source.is_dir():
            if split is not None:
                raise InputError(f"split {split!r} needs a manifest with that column, {str(source)!r} is a folder.")
            files = sorted(
                path
                for path in source.rglob("*")
                if path.suffix.lower() in SOUND_SUFFIXES
                and path.is_file()
                and not any(part.startswith(".") for part in path.relative_to(source).parts)
            )
            if not files:
                raise InputError(f"the folder {str(source)!r} holds no sound files.")
            return cls(files, seconds=seconds, stft=stft)
        if not source.is_file():
            raise InputError(f"there is no folder or table {str(source)!r}.")
        rows = read_table(source, () if split is None else ("split",))
        column = next((name for name in ("file", "mixture_path") if rows and name in rows[0]), None)
        if column is None:
            raise InputError(f"{str(source)!r} must name sound files in a column file or mixture_path.")
        files = [source.parent / row[column] for row in rows if split is None or row["split"] == split]
        if not files:
            raise InputError(f"{str(source)!r} names no file of the split {split!r}.")
        return cls(files, seconds=seconds, stft=stft)

    def held_out(self, every: int) -> tuple["RecordedMixtures", "RecordedMixtures"]:
        """The corpus without every so-manieth of its files, and the corpus of those.

        Raises:
            InputError: if it has a single file.
        """
        every = whole_number("every", every, 2)
        files = list(dict.fromkeys(stretch.file for stretch in self.stretches))
        if len(files) < 2:
            raise InputError("files must be at least two, as one is held out.")
        options = {"seconds": self.seconds, "stft": self.stft}
        kept = files[every - 1 :: every] or files[-1:]
        return (
            RecordedMixtures([file for file in files if file not in kept], **options),
            RecordedMixtures(kept, **options),
        )

    def __len__(self) -> int:
        return len(self.stretches)

    def __getitem__(self, index: int, /) -> tuple[Complex[np.ndarray, "f t m"]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return (np.asarray(spectrogram(self.stft, jnp.asarray(self.samples(index), jnp.float32))),)

    def samples(self, index: int) -> Float[np.ndarray, "m samples"]:
        """A stretch at the transform's rate."""
        file, begin = self.stretches[index]
        sound = SoundFiles.open(file)
        first = int(begin * sound.sample_rate + 1e-6)
        found = sound.read(first, first + int(self.seconds * sound.sample_rate + 1e-6))
        length = round(self.seconds * self.stft.sample_rate)
        if not np.isfinite(found).all():  # left out by whoever trains, with this corpus's name for it
            return np.full((self.num_channels, length), np.nan)
        if not found.any():
            return np.zeros((self.num_channels, length))
        peak = np.abs(found).max()  # of any size, which resampling must not push out of the range of float32
        recording = Recording(found / peak, sound.sample_rate)
        resampled = peak * resample(recording, self.stft.sample_rate).samples[:, :length]
        return np.pad(resampled, ((0, 0), (0, length - resampled.shape[1])))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names and sizes and of what is taken of them (`vbss.train`)."""
        digest = hashlib.sha256(repr((self.seconds, self.stft)).encode())
        for file, begin in self.stretches:
            digest.update(f"{file.name}\0{file.stat().st_size}\0{begin}\n".encode())
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        """What warnings call a stretch."""
        file, begin = self.stretches[index]
        return f"{file} from {begin:g} s"
