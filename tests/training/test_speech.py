"""Stretches of clean speech: of one level, without pauses, at any rate, and clear words about wrong files."""

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from vbss.audio import STFT
from vbss.errors import InputError
from vbss.scenes import SpeechCorpus
from vbss.training import SpeechSpectra

TRANSFORM = STFT.init(8000, 0.032, 0.008)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, rate, level in (("a/x.wav", 8000, 1e-3), ("b/x.flac", 16000, 0.1)):
        samples = level * rng.standard_normal(2 * rate)
        samples[rate // 2 : rate] *= 1e-4  # a pause
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, samples, rate)
    return tmp_path


def test_items_are_powers_of_speech_at_one_level(folder):
    corpus = SpeechSpectra(SpeechCorpus.read(folder), stft=TRANSFORM, num_frames=16)
    assert all(
        not 4000 <= s.begin * 8000 / (16000 if s.file.suffix == ".flac" else 8000) < 6500 for s in corpus.stretches
    )
    items = np.stack([corpus[i][0] for i in range(len(corpus))])
    assert items.shape == (len(corpus), 16, 129) and items.dtype == np.float32
    means = {suffix: items[[s.file.suffix == suffix for s in corpus.stretches]].mean() for suffix in (".wav", ".flac")}
    np.testing.assert_allclose(means[".wav"], 1, rtol=0.1)
    np.testing.assert_allclose(means[".flac"], 0.5, rtol=0.1)  # of white noise, half is above the band
    np.testing.assert_array_equal(corpus[0][0], items[0])
    spectrum = TRANSFORM.forward(jnp.asarray(corpus.samples(1)))
    np.testing.assert_allclose(items[1], np.abs(spectrum[2:18]) ** 2 * 256 / 1.5, rtol=2e-3)
    assert "a/x.wav from sample 0" in corpus.name_of(0)
    with pytest.raises(IndexError):
        corpus[len(corpus)]


def test_other_stretches_have_another_fingerprint(folder):
    speech = SpeechCorpus.read(folder)
    found = {SpeechSpectra(speech, stft=TRANSFORM, num_frames=number).fingerprint for number in (16, 16, 20)}
    assert len(found) == 2


def test_what_is_no_speech_is_said(folder):
    soundfile.write(folder / "a" / "silent.wav", np.zeros(16000), 8000)
    assert len(SpeechSpectra(SpeechCorpus.read(folder), stft=TRANSFORM)) > 0
    with pytest.raises(InputError, match="no file of .* holds 80"):
        SpeechSpectra(SpeechCorpus.read(folder), stft=TRANSFORM, num_frames=10000)
    with pytest.raises(InputError, match="is at 8000 Hz"):
        SpeechSpectra(SpeechCorpus.read(folder))
    (folder / "b" / "x.flac").write_bytes(b"no sound")
    with pytest.raises(InputError, match="x.flac' cannot be read"):
        SpeechSpectra(SpeechCorpus.read(folder), stft=TRANSFORM)
