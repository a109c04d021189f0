import numpy as np
import pytest

from vbss.audio.faults import dead_channels, offsets, recording_warnings


@pytest.fixture
def sound():
    """Four channels of noise that peaks near half of full scale."""
    samples = np.random.default_rng(0).standard_normal((4, 4000))
    return 0.5 * samples / np.abs(samples).max()


def test_good_sound_has_no_faults(sound):
    assert list(recording_warnings(sound)) == []
    assert not dead_channels(sound).any()
    np.testing.assert_array_equal(offsets(sound), np.zeros(4))


@pytest.mark.parametrize(("gain", "is_dead"), [(0.0, True), (0.9e-3, True), (1.1e-3, False)])
@pytest.mark.parametrize("level", [1e-30, 1.0])
def test_a_channel_60_decibels_below_the_loudest_is_dead(sound, gain, is_dead, level):
    sound[0] = sound[1]  # as loud
    sound[0] *= gain
    np.testing.assert_array_equal(dead_channels(level * sound), [is_dead, False, False, False])


def test_a_constant_channel_is_dead_however_large(sound):
    sound[3] = -0.7
    np.testing.assert_array_equal(dead_channels(sound), [False, False, False, True])
    assert [warning.partition(" (")[0] for warning in recording_warnings(sound)] == ["channel 3"]


def test_silence_alone_is_dead():
    np.testing.assert_array_equal(dead_channels(np.zeros((2, 5))), [True, True])


def test_offsets_are_told_where_they_matter(sound):
    sound -= sound.mean(1, keepdims=True)
    rms = np.sqrt(np.mean(sound**2, 1))
    shift = np.array([0.05, -0.05, 0.2, -0.2]) * rms
    np.testing.assert_allclose(offsets(sound + shift[:, None]), np.where(np.arange(4) < 2, 0, shift), atol=1e-12)
    assert [warning[:9] for warning in recording_warnings(sound + shift[:, None])] == ["channel 2", "channel 3"]


def test_clipping_is_told(sound):
    sound[1] = np.clip(sound[1], -0.2, 0.3)
    sound[2] = np.maximum(sound[2], -0.1)  # on one side
    first, second = (warning for warning in recording_warnings(sound) if "offset" not in warning)
    assert first.startswith("channel 1 (counted from 0) is clipped")
    assert second.startswith("channel 2 (counted from 0) is clipped")


def test_uneven_channels_are_told(sound):
    sound[1] *= 0.1
    sound[3] *= 1.5  # three and a half dB are no fault
    (warning,) = recording_warnings(sound)
    *_, offset = recording_warnings(sound + [[0], [0], [0.2], [0]])  # an offset is no level
    assert offset.startswith("channel 2 (counted from 0) has a constant offset")
    assert len(list(recording_warnings(sound + [[0], [0], [0.2], [0]]))) == 2
    assert warning.startswith("channel 1 (counted from 0) is 2") and "dB quieter" in warning


def test_two_equal_peaks_are_not_clipping(sound):
    sound[0, 100:102] = sound[0, 200:202] = 0.5
    assert list(recording_warnings(sound)) == []


def test_odd_levels_are_told(sound):
    (quiet,) = recording_warnings(1e-4 * sound)
    assert "very quiet" in quiet and "86 dB below full scale" in quiet
    (loud,) = recording_warnings(6 * sound)
    assert "louder than full scale" in loud and "peak is 3." in loud


def test_digital_silence_is_told(sound):
    sound[:, 1000:1400] = 0
    sound[:, 2000:2399] = 0  # too short
    assert list(recording_warnings(sound)) == [
        "10 % of the recording is digital silence, of which nothing can be learnt."
    ]
