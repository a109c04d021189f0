"""Corpora of clean speech: stretches of the files of a folder, as powers, for autoencoders of spectra."""

import hashlib
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import soundfile
import soxr
from jaxtyping import Array, Float

from vbss.audio import STFT
from vbss.errors import InputError, whole_number
from vbss.scenes import SpeechCorpus

_LOUD = 1e-3  # of the loudest stretch's power: what is fainter (30 dB) is a pause


class _Stretch(NamedTuple):
    """A part of a file.

    Attributes:
        begin: its first sample, at the file's rate.
        level: the mean power of all stretches of the file in which somebody speaks.
    """

    file: Path
    begin: int
    level: float


class SpeechSpectra:
    """A corpus of `vbss.train` for `vbss.models.SpectralVAE`: items are powers of stretches, float32 (N, F).

    Each file counts at the same level, and stretches in which nobody speaks do not count. What was read once is kept in
    half precision: 230 MB an hour at 16 kHz, windows of 64 ms every 16 ms.

    Attributes:
        corpus: the speech.
        stft: the transform.
        num_frames: N, of a stretch.
        stretches: which they are, in order.
    """

    def __init__(self, corpus: SpeechCorpus, *, stft: STFT | None = None, num_frames: int = 64):
        """Stretches of all files.

        Args:
            corpus: such as `SpeechCorpus.read(folder, split="train")`; of several channels the first is taken.
            stft: by default of windows of 64 ms every 16 ms, at 16 kHz, to which files are resampled.
            num_frames: of a stretch.

        Raises:
            InputError: if a file cannot be read, is at a lower rate than the transform, or none holds a stretch of
                speech.
        """
        if not isinstance(corpus, SpeechCorpus):
            raise InputError(f"corpus must be a vbss.scenes.SpeechCorpus, got {type(corpus).__name__}")
        if not isinstance(stft, STFT | None):
            raise InputError(f"stft must be a vbss.audio.STFT, got {type(stft).__name__}")
        self.corpus, self.stft = corpus, STFT.init(16000) if stft is None else stft
        self.num_frames = whole_number("num_frames", num_frames, 1)
        self._read: dict[int, np.ndarray] = {}
        self._part: tuple[int, ...] = ()
        found: list[_Stretch] = []
        for file in (corpus.folder / name for names in corpus.files.values() for name in names):
            found.extend(self._stretches(file))
        if not found:
            raise InputError(f"corpus: no file of {str(corpus.folder)!r} holds {self._seconds:.2f} s of speech")
        self.stretches = tuple(found)

    def __len__(self) -> int:
        return len(self.stretches)

    def __getitem__(self, index: int, /) -> tuple[Float[np.ndarray, "n f"]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._read:
            magnitude = self.magnitude(jnp.asarray(self.samples(index), jnp.float32))
            self._read[index] = magnitude.astype(np.float16) if np.isfinite(magnitude).all() else magnitude
        return (np.square(self._read[index].astype(np.float32)),)

    def samples(self, index: int) -> Float[np.ndarray, " samples"]:
        """A stretch at the transform's rate and its file's level."""
        file, begin, level = self.stretches[index]
        rate = soundfile.info(file).samplerate
        length = round(self._seconds * rate)
        samples = soundfile.read(file, length, begin, dtype="float64", always_2d=True)[0][:, 0] / level**0.5
        return samples if rate == self.stft.sample_rate else soxr.resample(samples, rate, self.stft.sample_rate)

    def magnitude(self, samples: Float[Array, " samples"]) -> Float[np.ndarray, "n f"]:
        """Magnitudes of a stretch, of powers whose mean is that of the samples."""
        return np.asarray(_magnitude(self.stft, samples))[self._edge :][: self.num_frames]

    def held_out(self, every: int) -> tuple["SpeechSpectra", "SpeechSpectra"]:
        """All but the last stretches, one of so many and one at least, and those: a speaker's own validation.

        Raises:
            InputError: if there are fewer than two stretches.
        """
        every = whole_number("every", every, 2)
        if len(self) < 2:
            raise InputError(f"corpus: {str(self.corpus.folder)!r} must hold two stretches of {self._seconds:.2f} s")
        kept = max(1, len(self) // every)
        return self._with(0, len(self) - kept), self._with(len(self) - kept, len(self))

    def _with(self, begin: int, end: int) -> "SpeechSpectra":
        found = copy(self)
        found.stretches, found._read, found._part = self.stretches[begin:end], {}, (*self._part, begin, end)
        found.__dict__.pop("fingerprint", None)
        return found

    @property
    def _edge(self) -> int:
        """Frames at either end of a stretch that reach beyond it."""
        return -(-(self.stft.window_length // 2) // self.stft.hop_length)

    @property
    def _seconds(self) -> float:
        return (self.num_frames - 1 + 2 * self._edge) * self.stft.hop_length / self.stft.sample_rate

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the speech and of what is taken of it (`vbss.train`)."""
        taken = (self.corpus.fingerprint, self.stft, self.num_frames, *self._part)
        return hashlib.sha256(repr(taken).encode()).hexdigest()

    def name_of(self, index: int) -> str:
        """What warnings call a stretch."""
        file, begin, _ = self.stretches[index]
        return f"{file} from sample {begin}"

    def _stretches(self, file: Path) -> list[_Stretch]:
        """Those of a file in which somebody speaks."""
        try:
            with soundfile.SoundFile(file) as sound:
                rate, length = sound.samplerate, round(self._seconds * sound.samplerate)
                blocks = sound.blocks(length, always_2d=True, fill_value=0.0) if length <= sound.frames else []
                powers = np.array([np.square(block[:, 0]).mean() for block in blocks])[: sound.frames // max(length, 1)]
        except (soundfile.SoundFileError, OSError) as error:
            raise InputError(f"corpus: {str(file)!r} cannot be read ({error})") from error
        if rate < self.stft.sample_rate:
            raise InputError(f"corpus: {str(file)!r} is at {rate} Hz, it must be at {self.stft.sample_rate} or more")
        finite = powers[np.isfinite(powers)]
        if not finite.any():
            return []
        is_speech = ~(powers < _LOUD * finite.max())  # what is not finite is left out by whoever trains
        level = float(powers[is_speech & np.isfinite(powers)].mean())
        return [_Stretch(file, number * length, level) for number in np.flatnonzero(is_speech).tolist()]


@eqx.filter_jit
def _magnitude(stft: STFT, samples: Float[Array, " samples"]) -> Float[Array, "n f"]:
    """Of powers whose mean is that of the samples."""
    return jnp.abs(stft.forward(samples)) * (stft.window_length / 1.5) ** 0.5
