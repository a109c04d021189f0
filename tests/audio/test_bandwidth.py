"""Frequencies above a recording's bandwidth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soxr

from vbss.audio import STFT, empty_bands
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like

RATE = 16000
STFT_ = STFT.init(RATE, 0.064, 0.016)
FREQUENCIES = np.asarray(STFT_.frequencies)


@jax.jit
def spectrogram(samples):
    return jnp.moveaxis(STFT_.forward(samples), 0, -1)


@jax.jit
def empty(samples):
    return empty_bands(spectrogram(samples))


def cut_off(samples):
    """The lowest of the frequencies that are empty, Hz; those above must be empty too."""
    is_empty = np.asarray(empty(jnp.asarray(samples)))
    first = int(np.argmax(is_empty))
    np.testing.assert_array_equal(is_empty, is_empty.any() & (np.arange(len(is_empty)) >= first))
    return FREQUENCIES[first] if is_empty.any() else None


def voices(rate=RATE, seed=0):
    """A voice at each of two microphones."""
    return np.stack([speech_like(voice, 2.0, rate, seed) for voice in (LOW_VOICE, HIGH_VOICE)])


def as_16_bits(samples):
    return np.round(samples * 2**15) / 2**15


def sloping_noise(slope, seconds=2.0):
    """Noise that falls by `slope` dB per octave above 100 Hz, and comes and goes by 30 dB."""
    num_samples = int(seconds * RATE)
    hertz = np.fft.rfftfreq(num_samples, 1 / RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal((2, num_samples)))
    noise = np.fft.irfft(spectrum * np.maximum(hertz / 100, 1) ** (-slope / (20 * np.log10(2))), num_samples)
    noise *= 10 ** (-0.75 * (1 + np.cos(2 * np.pi * 4 * np.arange(num_samples) / RATE)))
    return noise / np.abs(noise).max()


@pytest.mark.parametrize("seed", range(3))
def test_voices_are_kept_at_all_frequencies(seed):
    assert cut_off(voices(seed=seed)) is None
    assert cut_off(as_16_bits(voices(seed=seed))) is None


@pytest.mark.parametrize("slope", [0, 6, 12, 15])
def test_sloping_noise_is_kept_at_all_frequencies(slope):
    noise = sloping_noise(slope)
    assert cut_off(noise) is None
    assert cut_off(as_16_bits(noise)) is None
    if slope == 15:  # although its high frequencies are weak
        power = np.max(np.abs(np.asarray(spectrogram(jnp.asarray(noise))))[5:-5] ** 2, axis=(0, 2))
        assert power[-1] < 1e-6 * power.max()


@pytest.mark.parametrize("seed", range(3))
def test_above_a_lower_rate_nothing_is_kept(seed):
    upsampled = soxr.resample(voices(8000, seed).T, 8000, RATE).T
    for samples in (upsampled, as_16_bits(upsampled), 0.1 * upsampled, 1e-30 * upsampled):
        assert 3600 < cut_off(samples) <= 4100


def test_a_click_does_not_fill_the_bands():
    upsampled = soxr.resample(voices(8000).T, 8000, RATE).T
    upsampled[:, 7000] = 0.9
    assert 3600 < cut_off(upsampled) <= 4100


def test_a_sound_that_comes_now_and_then_fills_them():
    upsampled = soxr.resample(voices(8000).T, 8000, RATE).T
    time = np.arange(upsampled.shape[1]) / RATE
    chirps = 0.01 * np.cos(2 * np.pi * 7600 * time) * (time % 0.4 < 0.05)  # an eighth of the time
    lowest = cut_off(upsampled + chirps)
    assert lowest is None or lowest > 7600


def test_single_precision_and_the_shortest_input():
    upsampled = soxr.resample(voices(8000).T, 8000, RATE).T
    assert 3600 < cut_off(upsampled.astype(np.float32)) <= 4100
    assert not jax.jit(empty_bands)(jnp.ones((1, 2, 1), complex)).any()


def test_silence_says_nothing():
    assert cut_off(np.zeros((2, 2 * RATE))) is None
