"""Whitening by a diffuse sound field, and the choice of the frames that sound."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

_SENSOR_SHARE = 0.1  # white sensor noise beside one part of diffuse sound: keeps low frequencies invertible
_QUIET = 10**-2.5  # a frame this far below the loud ones (25 dB in power) is a pause
_LOUD = 95  # percentile of the frames' powers that counts as loud: a click or the slam of a door does not


def diffuse_coherence(
    microphone_positions: Float[np.ndarray, "microphones 3"],
    frequencies: Float[np.ndarray, " frequencies"],
    speed_of_sound: float = 343.0,
) -> Float[np.ndarray, "frequencies microphones microphones"]:
    """The coherence of two microphones at distance r (m) in sound from all directions alike: sinc(2 f r / c), f in Hz.

    This is sin(2 pi f r / c) / (2 pi f r / c), with c the speed of sound in m/s.
    """
    distances = np.linalg.norm(microphone_positions[:, None] - microphone_positions[None], axis=-1)
    return np.sinc(2 * frequencies[:, None, None] * distances[None] / speed_of_sound)


def diffuse_whitening(
    microphone_positions: Float[np.ndarray, "microphones 3"],
    frequencies: Float[Array, " frequencies"],
    speed_of_sound: float = 343.0,
) -> Float[Array, "frequencies microphones microphones"]:
    """The matrices that make a diffuse sound field white across the microphones.

    The inverse square roots of (sinc(2 f r_mn / c) + 0.1 I) / 1.1, r_mn the distance of two microphones: the coherence
    of sound from all directions, with a little sensor noise. Without it, the microphones of a small array hear the same
    at low frequencies, and neither float32 nor a template with an isotropic rest tells the directions apart.

    Args:
        microphone_positions: metres.
        frequencies: Hz.
        speed_of_sound: metres per second.

    Returns:
        Symmetric positive definite matrices, of the frequencies' dtype.
    """
    coherence = diffuse_coherence(microphone_positions, np.asarray(frequencies, np.float64), speed_of_sound)
    loaded = (coherence + _SENSOR_SHARE * np.eye(coherence.shape[-1])[None]) / (1 + _SENSOR_SHARE)
    values, vectors = np.linalg.eigh(loaded)
    whitening = (vectors / np.sqrt(values)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return jnp.asarray(whitening, frequencies.dtype)


def whitened(
    whitening: Inexact[Array, "frequencies microphones microphones"],
    vectors: Complex[Array, "frequencies any microphones"],
) -> Complex[Array, "frequencies any microphones"]:
    """Vectors of the microphones, each times its frequency's matrix."""
    return jnp.einsum("fmn,fan->fam", whitening.astype(vectors.dtype), vectors, precision="highest")


def active_frames(mixture: Complex[Array, "frames frequencies microphones"]) -> Bool[Array, " frames"]:
    """Which frames sound.

    Pauses are those 25 dB or more below the loud frames (the 95th percentile of their powers). A model of the
    direction of each bin, whatever its level, would take their sensor noise for evidence.
    """
    magnitudes = jnp.abs(mixture)
    peak = jnp.max(magnitudes)
    scaled = magnitudes / jnp.where(peak > 0, peak, 1)  # squares of a quiet recording would vanish
    power = jnp.sum(jnp.square(scaled), axis=(1, 2))
    rank = -(-_LOUD * (power.shape[0] - 1) // 100)  # of the percentile, rounded up
    return power > _QUIET * jnp.sort(power)[rank]
