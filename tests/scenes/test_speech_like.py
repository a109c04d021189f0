import numpy as np
import pytest
from scipy import signal

from vbss.errors import InputError
from vbss.scenes import HIGH_VOICE, LOW_VOICE, Speaker, speech_like

SAMPLE_RATE = 16000


def spectrogram(samples):
    return signal.stft(samples, SAMPLE_RATE, nperseg=1024, noverlap=768)[2]


def oracle_mask_ratio(target, other):
    """SDR (dB) of the target separated from the sum by the ideal binary mask."""
    wanted, unwanted = spectrogram(target), spectrogram(other)
    mask = np.abs(wanted) > np.abs(unwanted)
    estimate = signal.istft(mask * (wanted + unwanted), SAMPLE_RATE, nperseg=1024, noverlap=768)[1][: len(target)]
    projection = (estimate @ target) / (target @ target) * target
    return 10 * np.log10(np.sum(projection**2) / np.sum((estimate - projection) ** 2))


def median_pitch(samples):
    """Hz, from the autocorrelation of the louder half of the frames."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512]
    power = np.sum(frames**2, axis=1)
    frames = frames[power > np.median(power)]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 4096)) ** 2)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
    return np.median(SAMPLE_RATE / lags[np.argmax(correlation[:, lags], axis=1)])


@pytest.mark.parametrize("seed", range(4))
def test_two_voices_are_as_disjoint_as_real_speech(seed):
    low, high = (speech_like(voice, 5.0, seed=2 * seed + index) for index, voice in enumerate([LOW_VOICE, HIGH_VOICE]))
    # Pairs of read speech of equal level give 12.7 to 16 dB (10th to 90th percentile); noise gives 5.
    assert 12 < oracle_mask_ratio(low, high) < 19
    assert 12 < oracle_mask_ratio(high, low) < 19


def test_the_disjointness_measure_tells_noise_from_speech():
    noise = np.random.default_rng(0).standard_normal((2, 80000))
    assert oracle_mask_ratio(*noise) < 8


@pytest.mark.parametrize("voice", [LOW_VOICE, HIGH_VOICE])
def test_the_pitch_is_the_speakers(voice):
    assert median_pitch(speech_like(voice, 5.0)) == pytest.approx(voice.fundamental_frequency, rel=0.15)


@pytest.mark.parametrize("voice", [LOW_VOICE, HIGH_VOICE])
def test_there_are_pauses(voice):
    frames = speech_like(voice, 5.0).reshape(-1, 400)
    power = np.mean(frames**2, axis=1)
    assert 0.05 < np.mean(power < 1e-3 * power.max()) < 0.5


@pytest.mark.parametrize(("seconds", "sample_rate"), [(1.0, 8000), (1.37, 16000), (2.0, 44100)])
def test_length_level_and_range(seconds, sample_rate):
    samples = speech_like(LOW_VOICE, seconds, sample_rate)
    assert samples.shape == (round(seconds * sample_rate),)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.05)
    assert np.max(np.abs(samples)) < 1


def test_the_seed_decides_what_is_said():
    first, again, other = (speech_like(LOW_VOICE, 1.0, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.3


def test_impossible_sounds_are_refused():
    with pytest.raises(InputError, match="seconds"):
        speech_like(LOW_VOICE, 0.5)
    with pytest.raises(InputError, match="sample_rate"):
        speech_like(LOW_VOICE, 1.0, 4000)
    with pytest.raises(InputError, match="syllable_rate"):
        Speaker(100.0, 1.0, 0.0)
