import numpy as np
import pytest

from vbss.audio.faults import alone_warnings, dead_channels, offsets, recording_warnings
from vbss.audio.lost_sound import LostSound

RATE = 2000


@pytest.fixture
def sound():
    """Four channels of noise that peaks near half of full scale."""
    samples = np.random.default_rng(0).standard_normal((4, 4000))
    return 0.5 * samples / np.abs(samples).max()


def told(samples):
    return list(recording_warnings(samples, LostSound.find(samples, dead_channels(samples), RATE)))


def test_good_sound_has_no_faults(sound):
    assert told(sound) == []
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
    assert [warning.partition(" (")[0] for warning in told(sound)] == ["channel 3"]


def test_silence_alone_is_dead():
    np.testing.assert_array_equal(dead_channels(np.zeros((2, 5))), [True, True])


def test_offsets_are_told_where_they_matter(sound):
    sound -= sound.mean(1, keepdims=True)
    rms = np.sqrt(np.mean(sound**2, 1))
    shift = np.array([0.05, -0.05, 0.2, -0.2]) * rms
    np.testing.assert_allclose(offsets(sound + shift[:, None]), np.where(np.arange(4) < 2, 0, shift), atol=1e-12)
    assert [warning[:9] for warning in told(sound + shift[:, None])] == ["channel 2", "channel 3"]


def test_channels_by_themselves_have_offsets_and_clipping(sound):
    assert list(alone_warnings(sound, RATE)) == []
    sound[1] *= 1e-2  # neither differing levels nor dropouts matter to them
    sound[2] = np.clip(sound[2], -0.2, 0.3)
    sound[3] += 1
    told = list(alone_warnings(sound, RATE))
    assert [text[:9] for text in told] == ["channel 3", "channel 2"] and "used as it is" in told[1]


def test_clipping_is_told(sound):
    sound[1] = np.clip(sound[1], -0.2, 0.3)
    sound[2] = np.maximum(sound[2], -0.1)  # on one side
    first, second = (warning for warning in told(sound) if "offset" not in warning)
    assert first.startswith("channel 1 (counted from 0) is clipped")
    assert second.startswith("channel 2 (counted from 0) is clipped")


def test_uneven_channels_are_told(sound):
    sound[1] *= 0.1
    sound[3] *= 1.5  # three and a half dB are no fault
    (warning,) = told(sound)
    *_, offset = told(sound + [[0], [0], [0.2], [0]])  # an offset is no level
    assert offset.startswith("channel 2 (counted from 0) has a constant offset")
    assert len(told(sound + [[0], [0], [0.2], [0]])) == 2
    assert warning.startswith("channel 1 (counted from 0) is 2") and "dB quieter" in warning


def test_two_equal_peaks_are_not_clipping(sound):
    sound[0, 100:102] = sound[0, 200:202] = 0.5
    assert told(sound) == []


def test_odd_levels_are_told(sound):
    (quiet,) = told(1e-4 * sound)
    assert "very quiet" in quiet and "86 dB below full scale" in quiet
    (loud,) = told(6 * sound)
    assert "louder than full scale" in loud and "peak is 3." in loud


def test_digital_silence_is_told(sound):
    sound[:, 1000:1400] = 0
    sound[:, 2000:2399] = 0  # too short
    assert told(sound) == ["10 % of the recording is digital silence, of which nothing can be learnt."]


def test_what_becomes_of_clipped_sound_is_told(sound):
    (rare,) = told(np.where(np.arange(4000) < 1000, np.clip(sound, [[-1], [-0.1], [-1], [-1]], 1), 0.1 * sound))
    assert rare.startswith("channel 1 (counted from 0) is clipped")
    assert rare.endswith("lower the recording level. Nothing was learnt from these moments.")
    *_, everywhere = told(np.clip(sound, -0.1, 0.1))
    assert everywhere.startswith("channel 3 (counted from 0) is clipped")
    assert everywhere.endswith("lower the recording level. It was used as it is.")


def test_a_coarse_sound_at_its_limits_is_not_clipped(sound):
    (quiet,) = told(np.round(8 * sound) / 2**15)
    assert "very quiet" in quiet


def test_dropouts_are_told(sound):
    sound[1, 100:140] = sound[1, 2000:2100] = 0
    sound[3, 400:420] = 0
    assert told(sound) == [
        "channel 1 (counted from 0) dropped out 2 times, for 0.07 s in total. Nothing was learnt from these moments.",
        "channel 3 (counted from 0) dropped out once, for 0.01 s in total. Nothing was learnt from these moments.",
    ]


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        ([(2500, 4000)], "has no sound from 1.25 s on, and was left out."),
        ([(0, 600)], "has no sound from 0 s to 0.3 s, and was left out."),
        ([(0, 300), (400, 700)], "dropped out 2 times from 0 s to 0.35 s, for 0.3 s in total, and was left out."),
        ([(900, 1200), (3000, 4000)], "dropped out 2 times from 0.45 s on, for 0.65 s in total, and was left out."),
    ],
)
def test_of_a_channel_that_is_left_out_only_this_is_told(sound, rows, warning):
    sound[2] = np.clip(0.01 * sound[2] + 0.02, 0, 0.021)  # quiet, clipped, and with an offset
    for start, stop in rows:
        sound[2, start:stop] = 0
    assert told(sound) == [f"channel 2 (counted from 0) {warning}"]
