"""The short-time Fourier transform and its inverse."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.signal
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.audio.files import check_sample_rate
from vbss.errors import InputError

# Where frames overlap least, the squared windows must still add up to this fraction of where they overlap
# most: the inverse divides by that sum, so a smaller one would amplify rounding and every change made to the
# spectrogram.
_MIN_OVERLAP = 1e-3


class STFT(eqx.Module):
    """Short-time Fourier transform with a Hann window, and its exact inverse.

    The signal is extended by half a window of zeros at both ends, so that every sample lies under full
    overlap; frame t is centred on sample `t * hop_length`. Values are scaled by the sum of the window: a
    sinusoid of amplitude a on a bin reads a/2. The transform has the sign exp(-j 2 pi f t), so a delay turns
    phases negative.

    Works for float32 and float64, under `jit`, `vmap` and `grad`.

    Attributes:
        window_length: of the Hann window and the Fourier transform, samples.
        hop_length: from one window to the next, samples.
        sample_rate: Hz.

    Raises:
        InputError: if the lengths are not positive integers with hop_length <= window_length, or overlap too
            little for an inverse (the Hann window needs a hop of at most about 0.9 windows).
    """

    window_length: int = eqx.field(static=True)
    hop_length: int = eqx.field(static=True)
    sample_rate: int = eqx.field(static=True)

    def __check_init__(self):
        check_sample_rate(self.sample_rate)
        for name, value in (("window_length", self.window_length), ("hop_length", self.hop_length)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a positive integer number of samples, got {value!r}.")
        if self.hop_length > self.window_length:
            raise InputError(
                f"hop_length ({self.hop_length} samples) must not exceed window_length ({self.window_length} samples)."
            )
        overlap = _overlapped_power(self.window_length, self.hop_length)
        if not overlap.min() > _MIN_OVERLAP * overlap.max():
            raise InputError(
                f"hop_length ({self.hop_length} samples) is too long for window_length ({self.window_length} "
                "samples): some samples lie only under the vanishing ends of windows and could not be "
                "reconstructed. Use a hop of at most 0.9 windows; a quarter to a half is usual."
            )

    @classmethod
    def init(cls, sample_rate: int | np.integer, window: float = 0.064, hop: float = 0.016) -> "STFT":
        """An STFT with `window` and `hop` in seconds (rounded to samples) for a `sample_rate` in Hz.

        Raises:
            InputError: if a duration or the rate is not positive and finite, the hop is longer than the
                window, or the two overlap too little for an inverse.
        """
        sample_rate = check_sample_rate(sample_rate)
        for name, seconds in (("window", window), ("hop", hop)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise InputError(f"{name} must be a positive duration in seconds, got {seconds!r}.")
            if round(seconds * sample_rate) < 1:
                raise InputError(f"{name} ({seconds} s) is shorter than one sample at {sample_rate} Hz.")
        if hop > window:
            raise InputError(f"hop ({hop} s) must not be longer than window ({window} s).")
        return cls(round(window * sample_rate), round(hop * sample_rate), sample_rate)

    @property
    def frequencies(self) -> Float[Array, " frequencies"]:
        """Centre frequencies of the bins in Hz, from 0 to half the sample rate."""
        return jnp.asarray(np.fft.rfftfreq(self.window_length, 1 / self.sample_rate))

    def forward(self, signals: Float[Array, "*batch samples"]) -> Complex[Array, "*batch frames frequencies"]:
        """The spectrogram of real signals, complex64 for float32 and complex128 for float64.

        Raises:
            InputError: if the signals are shorter than one window.
        """
        self._check_length("signals", signals.shape[-1])
        _, _, spectrogram = jax.scipy.signal.stft(
            signals, nperseg=self.window_length, noverlap=self.window_length - self.hop_length
        )
        return jnp.swapaxes(spectrogram, -2, -1)

    def touched_frames(self, is_lost: Bool[Array | np.ndarray, " samples"]) -> Bool[Array, " frames"]:
        """Which frames of `forward` depend on a sample that is lost.

        Raises:
            InputError: if there are fewer samples than one window has.
        """
        num_samples = is_lost.shape[0]
        self._check_length("is_lost", num_samples)
        half = self.window_length // 2
        num_hops = -(-(num_samples + 2 * half - self.window_length) // self.hop_length)
        length, before = self.window_length - 1, half - 1  # the window's first value is zero
        after = num_hops * self.hop_length + length - before - num_samples
        return jax.lax.reduce_window(
            jnp.asarray(is_lost), False, jax.lax.bitwise_or, (length,), (self.hop_length,), ((before, after),)
        )

    def inverse(
        self, spectrogram: Complex[Array, "*batch frames frequencies"], num_samples: int
    ) -> Float[Array, "*batch {num_samples}"]:
        """The real signals of `num_samples` samples whose STFT is nearest to the spectrogram (least squares).

        `inverse(forward(x), num_samples)` is x up to rounding.

        Raises:
            InputError: if the bins do not belong to this window, or the frames do not reach `num_samples`.
        """
        num_frames, num_frequencies = spectrogram.shape[-2:]
        if num_frequencies != self.window_length // 2 + 1:
            raise InputError(
                f"spectrogram has {num_frequencies} frequencies on its last axis; a window of "
                f"{self.window_length} samples has {self.window_length // 2 + 1}."
            )
        # Half a window was added at each end: what is cut off again is 2 * (window_length // 2).
        num_covered = (num_frames - 1) * self.hop_length + self.window_length % 2
        if not 1 <= num_samples <= num_covered:
            raise InputError(
                f"num_samples must be from 1 to {num_covered}, which is what {num_frames} frames of "
                f"spectrogram cover; got {num_samples}."
            )
        # The FFT length is given because the default assumes an even window.
        _, signals = jax.scipy.signal.istft(
            spectrogram,
            nperseg=self.window_length,
            noverlap=self.window_length - self.hop_length,
            nfft=self.window_length,
            time_axis=-2,
            freq_axis=-1,
        )
        return signals[..., :num_samples]

    def _check_length(self, name: str, num_samples: int) -> None:
        if num_samples < self.window_length:
            raise InputError(
                f"{name} has {num_samples} samples on its last axis; at least one window of "
                f"{self.window_length} samples ({self.window_length / self.sample_rate:.3g} s) is needed."
            )


def _overlapped_power(window_length: int, hop_length: int) -> np.ndarray:
    """The sum of the squares of all shifted Hann windows over one hop, (hop_length,)."""
    power = np.sin(np.pi * np.arange(window_length) / window_length) ** 4
    padded = np.pad(power, (0, -window_length % hop_length))
    return padded.reshape(-1, hop_length).sum(0)
