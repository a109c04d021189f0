import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import InterauralCues, noise_power, observed_bins
from vbss.errors import InputError
from vbss.scenes import LOW_VOICE, speech_like

CUES = InterauralCues(sample_rate=8000)
LEAD, LEVEL = 3, 6.0  # of the left ear: samples and dB


def delayed_pair(num_samples=2000, dtype=np.float64):
    """White noise from the left: at the right ear later by LEAD samples and quieter by LEVEL dB."""
    noise = np.random.default_rng(0).standard_normal(num_samples + LEAD)
    return np.stack([noise[LEAD:], 10 ** (-LEVEL / 20) * noise[:num_samples]]).astype(dtype)


def test_the_settings_say_which_cues_there_are():
    cues = InterauralCues()
    assert cues.frequencies.shape == (512,) and float(cues.frequencies[0]) == 15.625
    assert cues.num_channels == 3 and cues.is_cue.shape == (3, 512)
    np.testing.assert_array_equal(cues.is_cue.sum(1), [512, 128, 128])
    assert hash(cues) == hash(InterauralCues())
    without = dataclasses.replace(cues, phase=False)
    assert without.num_channels == 1 and without.is_cue.all()
    assert without.cues(without.analyse(delayed_pair())).shape[0] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sample_rate": 0}, "sample_rate"), ({"hop": 0.1}, "hop"), ({"highest_phase": -1.0}, "highest_phase")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        InterauralCues(**settings)


def test_a_source_on_the_left_is_louder_and_earlier_there():
    cues = CUES.temporal_mean(delayed_pair())
    low = CUES.frequencies < 800
    np.testing.assert_allclose(cues[0].mean(), LEVEL, atol=0.3)
    phase = 2 * np.pi * CUES.frequencies[low] * LEAD / 8000
    np.testing.assert_allclose(jnp.arctan2(cues[2], cues[1])[low], phase, atol=0.15)
    np.testing.assert_allclose(CUES.temporal_mean(delayed_pair()[::-1])[0], -cues[0], atol=1e-9)


@pytest.mark.parametrize("gain", [1e-12, 0.5, 1e6])
def test_cues_do_not_depend_on_the_level(gain):
    samples = delayed_pair(dtype=np.float32)
    expected = CUES.cues(CUES.analyse(samples))
    actual = CUES.cues(CUES.analyse(np.float32(gain) * samples))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=2e-3)
    doubled = CUES.cues(CUES.analyse(np.float32(4.0) * samples))
    np.testing.assert_array_equal(doubled, expected)


def test_cues_of_silence_are_finite():
    samples = delayed_pair(dtype=np.float32)
    one_ear = CUES.cues(CUES.analyse(samples * np.array([[1.0], [0.0]], np.float32)))
    assert jnp.isfinite(one_ear).all() and 60 < one_ear[0].max() <= 120.001
    silence = CUES.cues(CUES.analyse(np.zeros_like(samples)))
    np.testing.assert_array_equal(silence[0], 0)
    np.testing.assert_array_equal(silence[1], 1)
    partly = samples.copy()
    partly[:, 1000:] = 0
    assert jnp.isfinite(CUES.cues(CUES.analyse(partly))).all()


def test_the_mean_is_over_frames_within_the_recording():
    samples = delayed_pair()
    # Frame t covers 128 t - 256 up to 128 t + 255: whole ones are 2 to 13.
    expected = CUES.cues(CUES.analyse(samples)[:, 2:14]).mean(-1)
    np.testing.assert_allclose(CUES.temporal_mean(samples), expected, atol=0.05)
    batch = CUES.temporal_mean(np.stack([samples, 2 * samples]))
    np.testing.assert_allclose(batch[1], batch[0], atol=1e-9)
    with pytest.raises(InputError, match="no whole window"):
        CUES.temporal_mean(samples[:, :511])


def test_other_than_two_channels_are_refused():
    for shape in [(1, 2000), (3, 2000)]:
        with pytest.raises(InputError, match="two channels"):
            CUES.analyse(np.zeros(shape))


def speech(level_of_noise):
    """Speech-like sound on the left, and white noise so many dB below it, as spectrograms."""
    voice = speech_like(LOW_VOICE, 4.0, 8000, seed=1)
    images = np.stack([voice, 0.5 * np.roll(voice, LEAD)]) / voice.std()
    noise = 10 ** (-level_of_noise / 20) * np.random.default_rng(2).standard_normal(images.shape)
    return CUES.analyse(images + noise), CUES.analyse(noise)


@pytest.mark.parametrize("level", [20.0, 30.0])
def test_the_noise_is_found_below_speech(level):
    mixture, noise = speech(level)
    ratio = 10 * jnp.log10(noise_power(mixture) / (jnp.abs(noise) ** 2).mean((1, 2))[:, None])
    assert -2 < float(jnp.median(ratio)) < 5
    assert float(jnp.abs(ratio).max()) < 10


def test_white_noise_alone_is_noise_of_its_own_power_but_never_all_of_the_sound():
    mixture = CUES.analyse(delayed_pair())
    mean = (jnp.abs(mixture) ** 2).mean((1, 2))[:, None]
    np.testing.assert_allclose(noise_power(mixture) / mean, 0.1, rtol=1e-6)
    assert float(observed_bins(mixture, noise_power(mixture)).mean()) > 0.2


def test_noise_scales_with_the_recording_and_pauses_of_digital_silence_do_not_count():
    mixture, _ = speech(20.0)
    expected = noise_power(mixture)
    np.testing.assert_allclose(noise_power(1e-3 * mixture), 1e-6 * expected, rtol=1e-9)
    # The bound by the mean power, which silence lowers, must not be what is compared.
    padded = noise_power(jnp.pad(mixture, ((0, 0), (0, 100), (0, 0))))
    np.testing.assert_allclose(padded, expected, rtol=1e-9)


def test_observed_bins_are_loud_and_above_the_noise():
    mixture, noise = speech(30.0)
    floor = jnp.broadcast_to((jnp.abs(noise) ** 2).mean(1), (2, 256))
    is_observed = observed_bins(mixture, floor)
    assert is_observed.shape == (256, mixture.shape[1])
    power = jnp.swapaxes(jnp.abs(mixture) ** 2, 1, 2)
    assert bool((power >= 10 * floor[..., None])[:, is_observed].all())
    energy = power.sum(0)
    assert float(energy[is_observed].min()) >= float(jnp.quantile(energy, 0.7))
    assert 0.05 < float(is_observed.mean()) <= 0.3001
    assert bool((is_observed | ~observed_bins(mixture, floor, margin=20.0)).all())
    everything = observed_bins(mixture, jnp.zeros_like(floor), share=1.0)
    assert bool(everything.all())
    with pytest.raises(InputError, match="share"):
        observed_bins(mixture, floor, share=0.0)


def test_a_silent_ear_observes_nothing():
    mixture, _ = speech(30.0)
    silent = mixture.at[1].set(0)
    floor = noise_power(silent)
    assert bool(jnp.isfinite(floor).all()) and not floor[1].any()
    assert not observed_bins(silent, floor).any()
    assert not observed_bins(jnp.zeros_like(mixture), noise_power(jnp.zeros_like(mixture))).any()


def test_single_precision_and_compilation_change_little():
    mixture, _ = speech(30.0)
    single = mixture.astype(jnp.complex64)
    floor = jax.jit(noise_power)(single)
    assert floor.dtype == jnp.float32
    np.testing.assert_allclose(floor, noise_power(mixture), rtol=1e-3)
    is_observed = jax.jit(observed_bins)(single, floor)
    assert float((is_observed != observed_bins(mixture, noise_power(mixture))).mean()) < 1e-3
