import numpy as np
import pytest
import soundfile

from vbss.audio import read_recording, write_recording
from vbss.errors import InputError
from vbss.scenes import SpeechCorpus
from vbss.scenes.excerpts import draw_excerpts

SAMPLE_RATE = 8000


def voice(pattern):
    """A second of noise for every 1 in `pattern` and one of near silence for every 0."""
    noise = np.random.default_rng(0).standard_normal((len(pattern), SAMPLE_RATE))
    return 0.1 * np.where(np.array(pattern)[:, None], noise, 1e-3 * noise).ravel()


@pytest.fixture
def corpus(tmp_path):
    """Speakers a and b, who pause for long, c, who only pauses for long, and d, whose file is short."""
    for speaker, pattern in {
        "a": [0, 0, 0, 1, 1, 0],
        "b": [1, 1, 0, 0, 0, 0],
        "c": [1, 0, 0, 0, 1, 0],
        "d": [1],
    }.items():
        (tmp_path / speaker).mkdir()
        write_recording(tmp_path / speaker / "x.wav", np.stack([voice(pattern), 0 * voice(pattern)]), SAMPLE_RATE)
    return SpeechCorpus.read(tmp_path)


def test_excerpts_hold_speech_of_different_speakers(corpus):
    begins = {"a": set(), "b": set()}
    for seed in range(40):
        excerpts, origins = draw_excerpts(corpus, 2, SAMPLE_RATE, 2.0, np.random.default_rng(seed))
        assert excerpts.shape == (2, 2 * SAMPLE_RATE)
        assert {origin["speaker"] for origin in origins} == {"a", "b"}
        for excerpt, origin in zip(excerpts, origins, strict=True):
            assert excerpt.std() > 0.1 * np.sqrt(0.59)
            begins[origin["speaker"]].add(round(origin["begin_seconds"], 2))
            samples = read_recording(corpus.folder / origin["file"]).samples[0]
            expected = samples[round(origin["begin_seconds"] * SAMPLE_RATE) :][: len(excerpt)].astype(float)
            np.testing.assert_allclose(excerpt, expected - expected.mean(), atol=1e-12)
    assert 2.2 <= min(begins["a"]) < max(begins["a"]) <= 3.8  # of the two seconds, 1.2 are speech
    assert 0.0 <= min(begins["b"]) < max(begins["b"]) <= 0.8


def test_files_are_resampled(corpus):
    excerpts, origins = draw_excerpts(corpus, 1, 2 * SAMPLE_RATE, 2.0, np.random.default_rng(0))
    assert excerpts.shape == (1, 4 * SAMPLE_RATE)
    spectrum = np.abs(np.fft.rfft(excerpts[0])) ** 2
    assert spectrum[len(spectrum) // 2 + 500 :].sum() < 1e-3 * spectrum.sum()


def test_an_excerpt_may_be_the_whole_file(corpus):
    excerpts, origins = draw_excerpts(corpus, 3, SAMPLE_RATE, 1.0, np.random.default_rng(0))
    assert excerpts.shape == (3, SAMPLE_RATE)
    _, origins = draw_excerpts(corpus, 4, SAMPLE_RATE, 1.0, np.random.default_rng(0))
    assert {"speaker": "d", "file": "d/x.wav", "begin_seconds": 0.0} in origins


def test_too_few_speakers_are_refused(corpus):
    with pytest.raises(InputError, match=r"2 speakers .* 2.0 s of speech .* needs 3"):
        draw_excerpts(corpus, 3, SAMPLE_RATE, 2.0, np.random.default_rng(0))


def test_broken_files_are_told(corpus):
    (corpus.folder / "a" / "x.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"x.wav' cannot be read"):
        draw_excerpts(corpus, 3, SAMPLE_RATE, 2.0, np.random.default_rng(0))


def test_silent_files_are_passed_over(corpus):
    for file in corpus.files["a"]:
        soundfile.write(corpus.folder / file, np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)
    _, origins = draw_excerpts(corpus, 1, SAMPLE_RATE, 2.0, np.random.default_rng(0))
    assert origins[0]["speaker"] != "a"
