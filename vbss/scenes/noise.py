"""Noise of a given level: of the sensors, and of the room."""

import numpy as np
from jaxtyping import Float

from vbss.audio.diffuse import diffuse_coherence

_CORNER = 100.0  # Hz, from which a room's noise falls
_LOADING = 1e-9  # share of independent noise, without which microphones are one and the same at 0 Hz
_BLOCK = 4096  # frequencies at a time: bounds the memory


def sensor_noise(
    shape: tuple[int, int], power: float, generator: np.random.Generator
) -> Float[np.ndarray, "microphones samples"]:
    """White noise, independent between microphones, of a mean power that is exactly `power`."""
    return _scaled(generator.standard_normal(shape), power)


def diffuse_noise(
    microphone_positions: Float[np.ndarray, "microphones 3"],
    num_samples: int,
    sample_rate: int,
    power: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "microphones samples"]:
    """Stationary noise from all directions alike, of a mean power that is exactly `power`.

    The spectrum is like that of a quiet room: flat up to 100 Hz, falling by 3 dB per octave above.

    Args:
        microphone_positions: m.
        num_samples: length.
        sample_rate: Hz.
        power: mean square over microphones and samples.
        generator: of the white noises.
    """
    spectra = np.fft.rfft(generator.standard_normal((len(microphone_positions), num_samples)))
    frequencies = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    spectra *= np.sqrt(_CORNER / np.maximum(frequencies, _CORNER))
    return _scaled(_diffuse(microphone_positions, spectra, frequencies, num_samples), power)


def diffuse_babble(
    microphone_positions: Float[np.ndarray, "microphones 3"],
    voices: Float[np.ndarray, "microphones samples"],
    sample_rate: int,
    power: float,
) -> Float[np.ndarray, "microphones samples"]:
    """Independent sounds, one for each microphone, spread over all directions; the mean power is exactly `power`.

    Args:
        microphone_positions: m.
        voices: such as `vbss.scenes.babble.draw_babble` gives, of one power each.
        sample_rate: Hz.
        power: mean square over microphones and samples.
    """
    num_samples = voices.shape[1]
    frequencies = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    return _scaled(_diffuse(microphone_positions, np.fft.rfft(voices), frequencies, num_samples), power)


def _diffuse(
    microphone_positions: np.ndarray, spectra: np.ndarray, frequencies: np.ndarray, num_samples: int
) -> Float[np.ndarray, "microphones samples"]:
    """Independent sounds (their spectra; overwritten) with the coherence of a spherically isotropic field.

    They are mixed with the Cholesky factor of the coherence (`vbss.audio.diffuse`) at each frequency (Habets, Cohen and
    Gannot, 2008), in one transform over all samples, so that no window blurs the coherence.
    """
    for start in range(0, len(frequencies), _BLOCK):
        block = slice(start, start + _BLOCK)
        coherence = diffuse_coherence(microphone_positions, frequencies[block])
        loaded = (coherence + _LOADING * np.eye(len(microphone_positions))) / (1 + _LOADING)
        spectra[:, block] = np.einsum("fmn,nf->mf", np.linalg.cholesky(loaded), spectra[:, block])
    return np.fft.irfft(spectra, num_samples)


def _scaled(noise: np.ndarray, power: float) -> np.ndarray:
    return noise * np.sqrt(power / np.mean(noise**2))
