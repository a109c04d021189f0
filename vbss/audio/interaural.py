"""What two ears tell of a direction: level and phase differences, and the bins in which they can be trusted."""

from dataclasses import dataclass
from math import log1p

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from vbss.audio.files import check_sample_rate
from vbss.audio.stft import STFT
from vbss.errors import InputError

_FLOOR = 1e-12  # of the loudest bin's power, under which a level difference loses its meaning (120 dB)
_LOW = 0.1  # quantile at which noise is looked for
_LARGEST_NOISE = 0.1  # of an ear's mean power


@dataclass(frozen=True)
class InterauralCues:
    """Cues of recordings with the channels (left, right), of every bin but those at 0 Hz.

    They are the level difference 20 log10 |left / right| in dB, positive for a source on the left, and cosine and sine
    of the phase difference, the angle of left times the conjugate of right. A source on the left arrives there first,
    so that its phase difference at low frequencies is positive. None depends on the recording's level.

    The defaults are those of Deleforge, Forbes and Horaud, "Variational EM for binaural sound-source separation and
    localization" (2013), who use level differences alone (`phase=False`).

    Attributes:
        sample_rate: Hz.
        window: of the Fourier transform, s.
        hop: from one window to the next, s.
        phase: whether phase differences are cues too.
        highest_phase: Hz, above which they are not: they turn around too often there.

    Raises:
        InputError: if the window, the hop and the rate make no `vbss.audio.STFT`, or `highest_phase` is not a
            frequency.
    """

    sample_rate: int = 16000
    window: float = 0.064
    hop: float = 0.016
    phase: bool = True
    highest_phase: float = 2000.0

    def __post_init__(self):
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))
        STFT.init(self.sample_rate, self.window, self.hop)  # refuses what is wrong
        if not 0 <= self.highest_phase < np.inf:
            raise InputError(f"highest_phase must be a frequency in Hz, got {self.highest_phase!r}.")

    @property
    def stft(self) -> STFT:
        """The transform of `analyse`, which also has the bins at 0 Hz."""
        return STFT.init(self.sample_rate, self.window, self.hop)

    @property
    def frequencies(self) -> Float[Array, " frequencies"]:
        """Of the bins, Hz, the lowest above 0."""
        return self.stft.frequencies[1:]

    @property
    def num_channels(self) -> int:
        """Of the cues: 3, or 1 without phase differences."""
        return 3 if self.phase else 1

    @property
    def is_cue(self) -> Bool[Array, "channels frequencies"]:
        """Which cues tell something: all level differences, and the phase up to `highest_phase`."""
        is_low = self.frequencies <= self.highest_phase
        return jnp.stack([jnp.ones_like(is_low), is_low, is_low][: self.num_channels])

    def analyse(self, samples: Float[Array | np.ndarray, "*batch ears samples"]) -> Complex[Array, "*batch 2 frames f"]:
        """The spectrogram of both ears without 0 Hz, of the samples' precision.

        Raises:
            InputError: if there are not two channels, or fewer samples than one window has.
        """
        if samples.ndim < 2 or samples.shape[-2] != 2:
            raise InputError(f"samples must have the two channels (left, right), got shape {samples.shape}.")
        return self.stft.forward(jnp.asarray(samples))[..., 1:]

    def cues(self, spectrogram: Complex[Array, "*batch 2 frames f"]) -> Float[Array, "*batch channels f frames"]:
        """Level difference (dB), cosine and sine of the phase difference in every bin, finite whatever is heard.

        120 dB below the recording's loudest bin is a floor: where both ears are far below, the level difference is 0,
        and the phase difference is 0 where one is silent.
        """
        left, right = jnp.moveaxis(_scaled_to_peak(spectrogram), -3, 0)
        power_left, power_right = _power(left), _power(right)
        cues = [10 * jnp.log10((power_left + _FLOOR) / (power_right + _FLOOR))]
        if self.phase:
            norm = jnp.sqrt(power_left) * jnp.sqrt(power_right)
            is_heard = norm > 0
            norm = jnp.where(is_heard, norm, 1)
            cosine = (left.real * right.real + left.imag * right.imag) / norm
            sine = (left.imag * right.real - left.real * right.imag) / norm
            cues += [jnp.where(is_heard, cosine, 1), jnp.where(is_heard, sine, 0)]
        return jnp.stack([jnp.swapaxes(cue, -2, -1) for cue in cues], axis=-3)

    def temporal_mean(
        self, samples: Float[Array | np.ndarray, "*batch ears samples"]
    ) -> Float[Array, "*batch channels f"]:
        """The cues' mean over time: of stationary sound, such as white noise, from one direction, what calibrates it.

        Only frames that lie within the recording count.

        Raises:
            InputError: if there are not two channels, or no frame lies within the recording.
        """
        stft, num_samples = self.stft, samples.shape[-1]
        half = stft.window_length // 2
        first, last = -(-half // stft.hop_length), (num_samples + half - stft.window_length) // stft.hop_length
        if last < first:
            raise InputError(
                f"samples has {num_samples} samples on its last axis, in which no whole window of "
                f"{stft.window_length} samples lies."
            )
        return self.cues(self.analyse(samples)[..., first : last + 1, :]).mean(-1)


def noise_power(spectrogram: Complex[Array, "2 frames f"]) -> Float[Array, "2 f"]:
    """The power of each ear's stationary noise, from the recording itself: what pauses leave.

    Speech falls silent again and again. The power that a tenth of a frequency's bins do not reach is then one of noise
    alone; divided by what this quantile is of the exponential distribution, which the power of Gaussian noise has, it
    is the noise's mean. In short recordings speech is never silent at many frequencies, while noise is much the same at
    neighbouring ones: so the lowest tenth of the estimates counts, among a quarter of all frequencies on either side. A
    noise that is much louder at low frequencies is underestimated there.

    Bins of digital silence do not count, and a silent ear has no noise. A sound without pauses has no floor of its own:
    no more than a tenth of the ear's mean power is called noise, so that loud bins stay well above it.
    """
    power = _power(spectrogram)
    heard = jnp.where(power > 0, power, jnp.nan)
    floor = jnp.nanquantile(heard, _LOW, axis=1) / -log1p(-_LOW)
    neighbours = floor.shape[1] // 4
    padded = jnp.pad(floor, ((0, 0), (neighbours, neighbours)), constant_values=jnp.nan)
    around = padded[:, np.arange(floor.shape[1])[:, None] + np.arange(2 * neighbours + 1)]
    smooth = jnp.nanquantile(around, _LOW, axis=-1)
    smooth = jnp.where(jnp.isnan(smooth), 0, smooth)  # an ear that is silent at all of these frequencies
    return jnp.minimum(smooth, _LARGEST_NOISE * power.mean((1, 2))[:, None])


def observed_bins(
    spectrogram: Complex[Array, "2 frames f"],
    noise_power: Float[Array, "2 f"],
    *,
    margin: float = 10.0,
    share: float = 0.3,
    only_rising: bool = False,
) -> Bool[Array, "f frames"]:
    """The bins whose cues can be trusted: both ears well above the noise, and among the recording's loudest.

    Args:
        spectrogram: of both ears.
        noise_power: of each ear, such as the function of that name estimates; 0 where there is none.
        margin: dB, at least so far above the noise both ears are.
        share: of all bins, the loudest by the sum of both powers.
        only_rising: whether a bin must be louder than the one before it: at the onset of a sound its echoes are still
            to come.

    Raises:
        InputError: if `share` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"share must be above 0 and at most 1, got {share!r}.")
    power = _power(spectrogram)
    is_heard = (power > 0) & (power >= 10 ** (margin / 10) * noise_power[:, None])
    energy = power.sum(0)
    is_loud = energy >= jnp.quantile(energy, 1 - share)
    is_observed = is_heard.all(0) & is_loud
    if only_rising:
        is_observed &= energy > jnp.pad(energy, ((1, 0), (0, 0)))[:-1]
    return is_observed.T


def _power(values: Complex[Array, "*shape"]) -> Float[Array, "*shape"]:
    return values.real**2 + values.imag**2


def _scaled_to_peak(spectrogram: Complex[Array, "*batch 2 frames f"]) -> Complex[Array, "*batch 2 frames f"]:
    """The spectrogram over its largest magnitude, so that no square of it leaves the range of float32."""
    peak = jnp.abs(spectrogram).max((-3, -2, -1), keepdims=True)
    scale = jnp.where(peak > 0, peak, 1)
    return lax.complex(spectrogram.real / scale, spectrogram.imag / scale)
