import numpy as np
import pytest

from vbss.audio import Recording, read_microphone_positions
from vbss.audio.array_recording import ArrayRecording
from vbss.errors import InputError

POSITIONS = read_microphone_positions("circular:4:0.08")


@pytest.fixture
def samples():
    return 0.1 * np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)


def check(samples, positions=POSITIONS, reference=0):
    return ArrayRecording.check(Recording(samples, 8000), positions, reference)


def test_good_sound_is_kept_but_for_its_level(samples):
    checked = check(samples, reference=2)
    assert 0.5 <= np.abs(checked.samples).max() < 1
    np.testing.assert_array_equal(np.ldexp(checked.samples, checked.exponent), samples)
    np.testing.assert_array_equal(checked.microphone_positions, POSITIONS)
    assert (checked.sample_rate, checked.reference_microphone, checked.warnings) == (8000, 2, ())
    assert checked.samples.dtype == np.float32
    assert checked.is_lost.shape == (1000,) and not checked.is_lost.any()


@pytest.mark.parametrize(("reference", "expected", "is_told"), [(0, 0, False), (3, 2, False), (1, 0, True)])
def test_dead_channels_are_left_out_with_their_microphones(samples, reference, expected, is_told):
    samples[1] = 0
    checked = check(samples, reference=reference)
    np.testing.assert_array_equal(np.ldexp(checked.samples, checked.exponent), samples[[0, 2, 3]])
    np.testing.assert_array_equal(checked.microphone_positions, POSITIONS[[0, 2, 3]])
    assert checked.reference_microphone == expected
    assert checked.warnings[0].startswith("channel 1 (counted from 0) is silent")
    told = "microphone 0 is the reference, as microphone 1 is silent."
    assert (checked.warnings[1:] == (told,)) == is_told


@pytest.mark.parametrize(("reference", "expected", "is_told"), [(0, 0, False), (3, 2, False), (1, 0, True)])
def test_a_channel_that_dies_is_left_out_with_its_microphone(samples, reference, expected, is_told):
    samples[1, 640:] = 0
    checked = check(samples, reference=reference)
    np.testing.assert_array_equal(checked.channels, [0, 2, 3])
    np.testing.assert_array_equal(np.ldexp(checked.samples, checked.exponent), samples[[0, 2, 3]])
    np.testing.assert_array_equal(checked.microphone_positions, POSITIONS[[0, 2, 3]])
    assert checked.reference_microphone == expected
    assert checked.warnings[0] == "channel 1 (counted from 0) has no sound from 0.08 s on, and was left out."
    assert (checked.warnings[1:] == ("microphone 0 is the reference, as microphone 1 drops out.",)) == is_told
    assert not checked.is_lost.any()


def test_short_dropouts_and_clipped_samples_are_lost():
    samples = 0.1 * np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)
    samples[1, 3000:3050] = 0
    limits = np.where(np.isin(np.arange(8000) // 200, [5, 25]), 0.05, 0.049)  # only in two moments
    samples[3] = np.minimum(samples[3], limits.astype(np.float32))
    checked = check(samples)
    is_clipped = samples[3] == 0.05
    starts = np.flatnonzero(is_clipped[:-2] & is_clipped[1:-1] & is_clipped[2:])
    expected = {*range(3000, 3050), *(start + step for start in starts for step in range(3))}
    assert 60 < len(expected) < 150
    assert set(np.flatnonzero(checked.is_lost)) == expected
    assert len(checked.channels) == 4
    told = [warning[:38] for warning in checked.warnings if "offset" not in warning]
    assert told == ["channel 1 (counted from 0) dropped out", "channel 3 (counted from 0) is clipped "]


def test_offsets_are_removed(samples):
    checked = check(samples + np.float32([[0], [0.3], [0], [0]]))
    np.testing.assert_allclose(
        np.ldexp(checked.samples, checked.exponent).mean(1), samples.mean(1) * [1, 0, 1, 1], atol=1e-7
    )
    assert len(checked.warnings) == 1 and "channel 1 (counted from 0) has a constant offset" in checked.warnings[0]


def test_a_line_is_told_also_of_what_is_left(samples):
    (warning,) = check(samples, read_microphone_positions("linear:4:0.05")).warnings
    assert "mirror image" in warning
    samples[1:3] = 0
    assert "mirror image" in check(samples).warnings[-1]  # two of a circle


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda samples: samples[:1], "recording has one channel"),
        (lambda samples: samples[:3], "4 microphones, but recording has 3 channels"),
        (lambda samples: np.concatenate([samples, 2 * samples]), "4 microphones, but recording has 8 channels"),
        (lambda samples: samples * np.float32([[1], [0], [0], [0]]), "sound in 1 of its 4 channels"),
        (
            lambda samples: np.where(np.arange(1000) < 500, samples, samples * np.float32([[1], [0], [0], [0]])),
            r"sound in 1 of its 4 channels; .* channel 1 \(counted from 0\) has no sound from 0.06 s on",
        ),
        (lambda samples: samples[[0, 1, 2, 0]], "same sound in channels 0 and 3"),
    ],
)
def test_what_cannot_be_an_arrays_recording_is_refused(samples, change, message):
    with pytest.raises(InputError, match=message):
        check(change(samples))


def test_microphones_above_each_other_are_refused(samples):
    positions = np.zeros((4, 3))
    positions[:, 2] = np.arange(4)
    with pytest.raises(InputError, match="differ in height only"):
        check(samples, positions)
