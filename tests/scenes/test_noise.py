import numpy as np
import pytest
from scipy import signal

from vbss.scenes.noise import diffuse_babble, diffuse_noise, sensor_noise

SAMPLE_RATE = 8000
POSITIONS = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.05, 0.02]])


@pytest.fixture(scope="module")
def diffuse():
    return diffuse_noise(POSITIONS, 400_000, SAMPLE_RATE, 0.01, np.random.default_rng(0))


def test_diffuse_noise_has_the_coherence_of_sound_from_everywhere(diffuse):
    frequencies, cross = signal.csd(diffuse[:, None], diffuse[None], SAMPLE_RATE, nperseg=512)
    power = np.real(np.einsum("mmf->mf", cross))
    coherence = cross / np.sqrt(power[:, None] * power[None])
    distances = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)
    expected = np.sinc(2 * frequencies * distances[..., None] / 343.0)
    np.testing.assert_allclose(coherence[..., 1:-1], expected[..., 1:-1], atol=0.1)
    assert np.mean(np.abs(coherence - expected) ** 2) < 0.03**2
    assert expected.min() < -0.2  # so that a wrong distance or speed would show


def test_diffuse_noise_falls_by_three_decibels_per_octave(diffuse):
    frequencies, power = signal.welch(diffuse[0], SAMPLE_RATE, nperseg=2048)
    used = (frequencies > 150) & (frequencies < 3900)
    slope = np.polyfit(np.log2(frequencies[used]), 10 * np.log10(power[used]), 1)[0]
    assert slope == pytest.approx(-3.01, abs=0.1)
    flat = (frequencies > 8) & (frequencies < 95)
    assert np.mean(power[flat]) == pytest.approx(power[used][0] * frequencies[used][0] / 100, rel=0.2)


def test_babble_keeps_its_spectrum_and_gets_the_same_coherence():
    voices = np.cumsum(np.random.default_rng(1).standard_normal((3, 200_000)), axis=1)
    voices -= signal.lfilter([0.01], [1, -0.99], voices)  # a spectrum of its own
    voices /= voices.std(1, keepdims=True)
    babble = diffuse_babble(POSITIONS, voices, SAMPLE_RATE, 0.01)
    frequencies, cross = signal.csd(babble[:, None], babble[None], SAMPLE_RATE, nperseg=512)
    power = np.real(np.einsum("mmf->mf", cross))
    coherence = cross / np.sqrt(power[:, None] * power[None])
    distances = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)
    assert np.mean(np.abs(coherence - np.sinc(2 * frequencies * distances[..., None] / 343.0)) ** 2) < 0.05**2
    _, expected = signal.welch(voices, SAMPLE_RATE, nperseg=512)
    np.testing.assert_allclose(
        power.mean(0) / power.sum() * 3, expected.mean(0) / expected.sum() * 3, rtol=0.2, atol=1e-5
    )
    assert np.mean(babble**2) == pytest.approx(0.01, rel=1e-12)


def test_sensor_noise_is_white_and_independent():
    noise = sensor_noise((3, 100_000), 0.01, np.random.default_rng(0))
    np.testing.assert_allclose(np.corrcoef(noise), np.eye(3), atol=0.02)
    assert abs(np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1]) < 0.02


@pytest.mark.parametrize("num_samples", [4000, 4001])
def test_the_power_is_exactly_the_asked_one(num_samples):
    generator = np.random.default_rng(0)
    diffuse = diffuse_noise(POSITIONS, num_samples, SAMPLE_RATE, 0.04, generator)
    sensor = sensor_noise((3, num_samples), 0.04, generator)
    assert diffuse.shape == sensor.shape == (3, num_samples)
    assert [np.mean(diffuse**2), np.mean(sensor**2)] == pytest.approx([0.04, 0.04], rel=1e-12)
