import numpy as np
import pytest

from vbss.audio import write_recording
from vbss.scenes import SpeechCorpus
from vbss.scenes.babble import draw_babble

SAMPLE_RATE = 8000


@pytest.fixture
def corpus(tmp_path):
    """Three speakers, each a tone of a pitch of his own, in files of different lengths."""
    for number, speaker in enumerate("abc"):
        (tmp_path / speaker).mkdir()
        time = np.arange(SAMPLE_RATE // (1 + number)) / SAMPLE_RATE
        tone = 0.1 * (1 + number) * np.sin(2 * np.pi * 1000 * (1 + number) * time)
        write_recording(tmp_path / speaker / "x.wav", np.stack([tone, 0 * tone]), SAMPLE_RATE)
    return SpeechCorpus.read(tmp_path)


def heard(sounds):
    """Which of the three speakers is heard in each sound."""
    spectrum = np.abs(np.fft.rfft(sounds)) ** 2
    frequencies = np.fft.rfftfreq(sounds.shape[1], 1 / SAMPLE_RATE)
    of_speakers = [spectrum[:, np.abs(frequencies - pitch) < 100].sum(1) for pitch in (1000, 2000, 3000)]
    return np.stack(of_speakers, 1) > 0.02 * spectrum.sum(1, keepdims=True)


def test_babble_is_of_the_other_speakers_at_one_level(corpus):
    babble = draw_babble(corpus, 3, SAMPLE_RATE, 12_000, np.random.default_rng(0), without=frozenset("a"))
    assert babble.shape == (3, 12_000)
    np.testing.assert_allclose(np.mean(babble**2, 1), 1, rtol=1e-12)
    np.testing.assert_array_equal(heard(babble).any(0), [False, True, True])
    assert np.abs(np.corrcoef(babble) - np.eye(3)).max() < 0.9  # different draws


def test_everybody_is_heard_where_nobody_else_is_left(corpus):
    babble = draw_babble(corpus, 4, SAMPLE_RATE, 4000, np.random.default_rng(0), without=frozenset("abc"))
    assert heard(babble).any(0).all()


def test_babble_is_drawn_by_the_generator(corpus):
    first, again, other = (draw_babble(corpus, 2, SAMPLE_RATE, 4000, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
