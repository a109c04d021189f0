"""Corpora of recordings: stretches of files, no more of them than is asked for, and clear words about wrong ones."""

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from vbss.audio import STFT, write_recording
from vbss.errors import InputError
from vbss.training import RecordedMixtures

TRANSFORM = STFT.init(8000, 0.032, 0.016)
OPTIONS = {"seconds": 0.5, "stft": TRANSFORM}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, rate, seconds in (("a.wav", 8000, 1.2), ("b.flac", 16000, 0.6), ("short.wav", 8000, 0.4)):
        samples = 0.1 * rng.standard_normal((3, int(rate * seconds)))
        write_recording(tmp_path / name, samples.astype(np.float32), rate)
    return tmp_path


def test_items_are_the_stretches_of_all_files(folder):
    corpus = RecordedMixtures.read(folder, **OPTIONS)
    assert len(corpus) == 3 and corpus.num_channels == 3
    assert [corpus.name_of(i).split("/")[-1] for i in range(3)] == [
        "a.wav from 0 s", "a.wav from 0.5 s", "b.flac from 0 s",
    ]  # fmt: skip
    items = [corpus[i][0] for i in range(3)]
    assert all(item.shape == items[0].shape and item.dtype == np.complex64 for item in items)
    expected = TRANSFORM.forward(jnp.asarray(corpus.samples(1), jnp.float32))
    np.testing.assert_allclose(items[1], np.transpose(expected, (2, 1, 0)), atol=1e-6)
    with pytest.raises(IndexError):
        corpus[3]


def test_other_files_have_another_fingerprint(folder):
    corpus = RecordedMixtures.read(folder, **OPTIONS)
    assert corpus.fingerprint == RecordedMixtures.read(folder, **OPTIONS).fingerprint
    others = {RecordedMixtures.read(folder, seconds=0.4, stft=TRANSFORM).fingerprint, corpus.held_out(2)[0].fingerprint}
    (folder / "a.wav").rename(folder / "c.wav")
    others.add(RecordedMixtures.read(folder, **OPTIONS).fingerprint)
    assert len(others | {corpus.fingerprint}) == 4


def test_a_manifest_names_files_and_splits(folder):
    (folder / "list.csv").write_text("file,split\na.wav,train\nb.flac,dev\n")
    assert len(RecordedMixtures.read(folder / "list.csv", **OPTIONS)) == 3
    assert len(RecordedMixtures.read(folder / "list.csv", split="dev", **OPTIONS)) == 1
    (folder / "mix.csv").write_text("mixture_ID,mixture_path\n1,a.wav\n")
    assert len(RecordedMixtures.read(folder / "mix.csv", **OPTIONS)) == 2
    with pytest.raises(InputError, match="'test'"):
        RecordedMixtures.read(folder / "list.csv", split="test", **OPTIONS)
    (folder / "bad.csv").write_text("path\na.wav\n")
    with pytest.raises(InputError, match="mixture_path"):
        RecordedMixtures.read(folder / "bad.csv", **OPTIONS)
    with pytest.raises(InputError, match="manifest"):
        RecordedMixtures.read(folder, split="train", **OPTIONS)


def test_silence_and_broken_samples_are_told_from_each_other(tmp_path):
    samples = np.zeros((2, 8000), np.float32)
    samples[:, 4000:] = 1
    samples[0, 5000] = np.nan
    soundfile.write(tmp_path / "x.wav", samples.T, 8000, subtype="FLOAT")
    corpus = RecordedMixtures.read(tmp_path, **OPTIONS)
    assert not corpus[0][0].any() and np.isnan(corpus[1][0]).any()


def test_files_are_held_out(folder):
    rest, kept = RecordedMixtures.read(folder, **OPTIONS).held_out(10)
    assert {s.file.name for s in rest.stretches} == {"a.wav"} and {s.file.name for s in kept.stretches} == {"b.flac"}
    with pytest.raises(InputError, match="at least two"):
        rest.held_out(10)


def test_what_cannot_be_read_is_named(folder):
    write_recording(folder / "mono.wav", np.ones((1, 8000), np.float32), 8000)
    with pytest.raises(InputError, match=r"mono\.wav"):
        RecordedMixtures.read(folder, **OPTIONS)
    with pytest.raises(InputError, match="16000 Hz or more"):
        RecordedMixtures([folder / "a.wav"], seconds=0.5, stft=STFT.init(16000))
    with pytest.raises(InputError, match="as long as"):
        RecordedMixtures([folder / "short.wav"], **OPTIONS)
    with pytest.raises(InputError, match="empty"):
        RecordedMixtures([], **OPTIONS)
    with pytest.raises(InputError, match=r"a\.wav.*no table"):
        RecordedMixtures.read(folder / "a.wav", **OPTIONS)
    with pytest.raises(InputError, match="no sound files"):
        (folder / "none").mkdir()
        RecordedMixtures.read(folder / "none", **OPTIONS)
