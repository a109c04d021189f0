"""Clipped samples and dropouts: planted ones are found exactly, in sound as it should be there are none."""

import numpy as np
import pytest

from vbss.audio.lost_sound import LostSound, runs
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like

RATE = 8000


def find(samples, is_dead=None):
    is_dead = np.zeros(len(samples), bool) if is_dead is None else np.asarray(is_dead)
    return LostSound.find(samples, is_dead, RATE)


def voices(seconds=3.0):
    """Two voices at three microphones, a few samples later at each, of peak 1; with pauses of exact silence."""
    first, second = (speech_like(voice, seconds, RATE, seed) for seed, voice in enumerate((LOW_VOICE, HIGH_VOICE)))
    samples = np.stack([np.roll(first, 3 * delay) + np.roll(second, -2 * delay) for delay in range(3)])
    samples[:, : RATE // 4] = 0
    return samples / np.abs(samples).max()


def noise(num_samples=2 * RATE, channels=3, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, num_samples))


def in_16_bits(samples):
    return (np.clip(np.round(samples * 2**15), -(2**15), 2**15 - 1) / 2**15).astype(np.float32)


def tone(hertz):
    time = np.arange(2 * RATE) / RATE
    return np.stack([np.cos(2 * np.pi * hertz * (time - delay * 1e-4)) for delay in range(3)])


def rows_at_the_limits(sound):
    """By brute force: the samples in rows of three or more at the highest or the lowest value."""
    found = np.zeros(len(sound), bool)
    for limit in (sound.max(), sound.min()):
        for start in range(len(sound) - 2):
            if all(sound[start : start + 3] == limit):
                found[start : start + 3] = True
    return found


CLEAN = {
    "voices of peak 1": voices(),
    "voices in single precision": voices().astype(np.float32),
    "white noise": noise(),
    "square waves": np.sign(tone(45) + 1e-9),
    "a square wave beside a voice": np.concatenate([np.sign(tone(45)[:1] + 1e-9), voices(2.0)]),
    **{f"16 bits at {level}": in_16_bits(level * voices()) for level in (1, 0.1, 0.01, 1e-3, 1e-4)},
    **{f"16 bits, uneven, at {level}": in_16_bits(level * voices() * [[1], [0.1], [0.03]]) for level in (1, 0.1, 1e-3)},
    **{f"{hertz} Hz in {kind}": form(tone(hertz)) for hertz in (20, 100, 441, 1000) for kind, form in (
        ("full precision", np.asarray), ("16 bits", in_16_bits), ("8 bits", lambda x: np.round(x * 127) / 128)
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_lost_of_clean_sound(name):
    lost = find(CLEAN[name])
    assert not lost.is_clipped.any() and not lost.is_dropped.any() and not lost.is_lost.any()
    assert not lost.is_failing.any() and not lost.is_clipping_everywhere


@pytest.mark.parametrize("form", [np.asarray, np.float32, in_16_bits], ids=["double", "single", "16 bits"])
@pytest.mark.parametrize("level", [1.0, 0.05])
def test_clipped_samples_are_found(form, level):
    samples = voices()
    samples[1] = np.maximum(samples[1], np.quantile(samples[1], 0.01))
    samples[2] = np.clip(samples[2], *np.quantile(samples[2], [0.005, 0.995]))
    samples = form(level * samples)
    lost = find(samples)
    np.testing.assert_array_equal(lost.is_clipped[0], False)
    for channel in (1, 2):
        expected = rows_at_the_limits(samples[channel])
        assert 50 < expected.sum() < 250
        np.testing.assert_array_equal(lost.is_clipped[channel], expected)
    np.testing.assert_array_equal(lost.is_lost, lost.is_clipped.any(0))
    assert not lost.is_dropped.any() and not lost.is_failing.any() and not lost.is_clipping_everywhere


def test_a_slow_loud_sound_clips_in_long_rows():
    hum = np.clip(1.5 * tone(21) + 0.1 * noise(), -1, 1)  # for 12 ms on end
    hum[1:] = noise(channels=2)
    lost = find(hum)
    np.testing.assert_array_equal(lost.is_clipped[0], rows_at_the_limits(hum[0]))
    assert lost.is_clipped[0].mean() > 0.3 and not lost.is_dropped.any()


def test_where_clipping_is_everywhere_it_is_kept_but_dropouts_are_not():
    samples = np.clip(noise(), -0.1, 0.1)
    samples[1, 5000:5100] = 0
    lost = find(samples)
    assert lost.is_clipping_everywhere and lost.is_clipped.any(1).all()
    np.testing.assert_array_equal(lost.is_lost, lost.is_dropped[1])
    np.testing.assert_array_equal(np.flatnonzero(lost.is_lost), np.arange(5000, 5100))


@pytest.mark.parametrize(
    ("form", "level"),
    [(np.asarray, 1e200), (np.float32, 1.0), (np.float32, 1e-36), (in_16_bits, 1.0), (in_16_bits, 0.01)],
)
def test_dropouts_are_found(form, level):
    samples = noise()
    samples[0, 300:340] = 0  # 5 ms
    samples[0, 900:939] = 0  # too short
    samples[0, [299, 340, 899, 939, -201]] = 0.1
    samples[0, -200:] = 0
    samples[2, :46] = 0.05  # not zero
    samples[2, 46] = 0.1
    expected = np.zeros(samples.shape, bool)
    expected[0, 300:340] = expected[0, -200:] = expected[2, :46] = True
    samples = form(level * samples)
    lost = find(samples)
    np.testing.assert_array_equal(lost.is_dropped, expected)
    np.testing.assert_array_equal(lost.is_lost, expected.any(0))
    assert not lost.is_failing.any() and not lost.is_clipped.any()


def test_silence_of_all_is_no_dropout():
    samples = noise()
    samples[:, 1000:3000] = 0
    samples[1, 3000:3080] = 0  # sound comes later there
    assert not find(samples).is_dropped.any()
    samples[1, 3000 : 3000 + RATE // 5] = 0  # but not as late as this
    np.testing.assert_array_equal(np.flatnonzero(find(samples).is_dropped[1]), np.arange(1000, 3000 + RATE // 5))


def test_a_channel_that_misses_but_faint_sound_does_not_drop_out():
    samples = noise()
    samples[:, 1000:3000] *= 1e-3
    samples[1, 1000:3000] = 0
    assert not find(samples).is_dropped.any()


@pytest.mark.parametrize(
    ("stop", "value", "is_failing"), [(0.12, 0.0, True), (0.08, 0.0, False), (0.5, 0.0, True), (0.5, -1.0, True)]
)
def test_a_channel_that_loses_more_than_a_tenth_fails(stop, value, is_failing):
    samples = noise()
    samples[:, : RATE // 2] = 0  # which is not counted
    lost_samples = round(stop * 1.5 * RATE)
    samples[1, -lost_samples:] = value
    lost = find(samples)
    assert lost.is_failing.tolist() == [False, is_failing, False]
    assert lost.is_dropped[1].sum() == lost_samples and not lost.is_dropped[[0, 2]].any()
    np.testing.assert_array_equal(lost.is_lost, lost.is_dropped[1] & (not is_failing))


def test_a_channel_that_stutters_fails():
    samples = noise()
    samples[2] *= np.arange(samples.shape[1]) % 800 >= 48  # six per cent of the time, but in all windows
    lost = find(samples)
    assert lost.is_failing.tolist() == [False, False, True] and not lost.is_lost.any()


def test_dead_channels_lose_nothing():
    samples = noise()
    samples[1] *= 1e-4
    samples[1, 500:900] = 0
    samples[:, 1000:3000] *= [[0], [1], [0]]  # all but the dead one are silent here
    lost = find(samples, [False, True, False])
    assert not lost.is_dropped.any() and not lost.is_lost.any()


def test_runs():
    starts, stops = runs(np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], bool), 2)
    assert (starts.tolist(), stops.tolist()) == ([0, 6], [2, 9])
    assert [len(edges) for edges in runs(np.zeros(0, bool))] == [0, 0]
