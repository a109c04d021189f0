"""Corpora of one voice amid others: stretches of a speaker with those of other speakers added, as powers."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from numbers import Real

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vbss.audio import STFT
from vbss.errors import InputError, whole_number
from vbss.training.speech import SpeechSpectra

_TIMES = 8  # each stretch of the voice is heard, by default, with so many others
_MOST_DECIBELS = 60.0


class VoiceMixtures:
    """A corpus of `vbss.train` for autoencoders that read a mixture and explain one voice in it.

    Items are powers of the voice and of the mixture, each float32 (N / context, context F), relative to the mean power
    of the mixture: rows are frames, or several in a row. Each stretch of the voice is heard with stretches of others,
    drawn at random; what was read once is kept in half precision.

    Attributes:
        voice: one speaker's speech.
        others: speech of those who may speak at the same time.
        num_items: how many mixtures there are.
        snr: the lowest and the highest level of the voice's file over the other's, dB, drawn between them; stretches
            differ from their files.
        context: frames that a network sees together.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        voice: SpeechSpectra,
        others: SpeechSpectra,
        *,
        num_items: int | None = None,
        snr: tuple[float, float] = (-5.0, 5.0),
        context: int = 1,
        seed: int = 0,
    ):
        """Mixtures of stretches.

        Args:
            voice, others: with one transform and number of frames.
            num_items: by default eight for each stretch of the voice.
            snr: dB, at most 60 either way.
            context: a divisor of the number of frames.
            seed: 0 or more.

        Raises:
            InputError: if the two differ in transform or length, or an argument is out of its range.
        """
        for name, speech in (("voice", voice), ("others", others)):
            if not isinstance(speech, SpeechSpectra):
                raise InputError(f"{name} must be SpeechSpectra, got {type(speech).__name__}")
        if (voice.stft, voice.num_frames) != (others.stft, others.num_frames):
            raise InputError(
                f"others must have the transform and number of frames of voice, {voice.stft} and {voice.num_frames}, "
                f"got {others.stft} and {others.num_frames}"
            )
        ratios = tuple(snr) if isinstance(snr, Sequence) else ()
        if len(ratios) != 2 or not all(isinstance(ratio, Real) for ratio in ratios):
            raise InputError(f"snr must be two numbers, the lowest and the highest ratio in dB, got {snr!r}")
        low, high = ratios
        if not -_MOST_DECIBELS <= low <= high <= _MOST_DECIBELS:
            raise InputError(f"snr must be the lowest and the highest ratio in dB, -60 to 60, got {snr!r}")
        self.context = whole_number("context", context, 1, voice.num_frames)
        if voice.num_frames % self.context:
            raise InputError(f"context must divide the number of frames, {voice.num_frames}, got {context}")
        self.voice, self.others, self.snr = voice, others, (float(low), float(high))
        self.num_items = whole_number("num_items", _TIMES * len(voice) if num_items is None else num_items, 1)
        self.seed = whole_number("seed", seed, 0)
        self._read: dict[int, np.ndarray] = {}

    @property
    def stft(self) -> STFT:
        """The transform."""
        return self.voice.stft

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int, /) -> tuple[Float[np.ndarray, "rows size"], Float[np.ndarray, "rows size"]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._read:
            place, other, snr = self._drawn(index)
            voice, noise = self.voice.samples(place), self.others.samples(other)
            length = min(len(voice), len(noise))  # of another rate, one may be longer by a sample
            voice, noise = voice[:length], 10 ** (-snr / 20) * noise[:length]
            magnitudes = [self.voice.magnitude(jnp.asarray(x, jnp.float32)) for x in (voice, voice + noise)]
            level = max(float(np.sqrt(np.mean(np.square(magnitudes[1])))), float(np.finfo(np.float32).tiny))
            found = np.stack(magnitudes) / level
            self._read[index] = found.astype(np.float16) if np.isfinite(found).all() else found
        rows = self.voice.num_frames // self.context
        voice, mixture = np.square(self._read[index].astype(np.float32)).reshape(2, rows, -1)
        return voice, mixture

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the speech and of how it is mixed (`vbss.train`)."""
        taken = (self.voice.fingerprint, self.others.fingerprint, self.num_items, self.snr, self.context, self.seed)
        return hashlib.sha256(repr(taken).encode()).hexdigest()

    def name_of(self, index: int) -> str:
        """What warnings call a mixture."""
        place, other, snr = self._drawn(index)
        return f"{self.voice.name_of(place)}, with {self.others.name_of(other)} at {snr:.0f} dB"

    def _drawn(self, index: int) -> tuple[int, int, float]:
        """The stretch of the voice, that of another, and the ratio between them."""
        generator = np.random.default_rng((self.seed, index))
        return index % len(self.voice), int(generator.integers(len(self.others))), float(generator.uniform(*self.snr))
