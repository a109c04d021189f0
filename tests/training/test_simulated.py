"""Corpora of simulated mixtures: the same item at all times, nothing of the truth, and a model that takes them."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss import Amortised, TrainingSettings, train
from vbss.audio import STFT, write_recording
from vbss.errors import InputError
from vbss.networks import Separator
from vbss.scenes import HIGH_VOICE, LOW_VOICE, Condition, SpeechCorpus, speech_like
from vbss.training import Corpus, SimulatedMixtures

CONDITION = Condition(seconds=1.0, microphones="circular:3:0.05")
STFT_OF_TESTS = STFT.init(8000, 0.032, 0.016)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for name, voice in (("low", LOW_VOICE), ("high", HIGH_VOICE)):
        (folder / name).mkdir()
        sound = speech_like(voice, 3.0, 8000, seed=len(name)).astype(np.float32)
        write_recording(folder / name / "speech.wav", sound, 8000)
    return SpeechCorpus.read(folder)


@pytest.fixture(scope="module")
def mixtures(corpus, tmp_path_factory):
    return SimulatedMixtures(corpus, CONDITION, 4, stft=STFT_OF_TESTS, cache=tmp_path_factory.mktemp("cache"))


def test_items_are_spectrograms_of_mixtures(mixtures, corpus):
    assert isinstance(mixtures, Corpus) and len(mixtures) == 4
    (item,) = mixtures[1]
    assert item.dtype == np.complex64 and item.shape == (129, 64, 3)
    expected = np.asarray(STFT_OF_TESTS.forward(jnp.asarray(mixtures.scene(1).mixture)))  # (M, T, F)
    np.testing.assert_allclose(item, expected.transpose(2, 1, 0), atol=1e-6)
    without_cache = SimulatedMixtures(corpus, CONDITION, 4, stft=STFT_OF_TESTS)
    np.testing.assert_array_equal(without_cache[1][0], item)
    assert (mixtures[2][0] != item).any()
    with pytest.raises(IndexError):
        mixtures[4]
    assert mixtures.name_of(3) == "scene 3 of the series 0"


def test_a_network_is_trained_on_them(mixtures):
    model = mixtures.model(num_directions=12)
    amortised = Amortised(Separator(129, 2, hidden_size=4, num_layers=1, key=jr.key(0)))
    training = train(model, amortised, mixtures, mixtures, TrainingSettings(batch_size=2, max_epochs=2))
    bounds = [entry["validation_bound"] for entry in training.history]
    assert np.isfinite(bounds).all() and bounds[1] > bounds[0]


def test_impossible_corpora_are_refused(corpus, tmp_path):
    with pytest.raises(InputError, match="count"):
        SimulatedMixtures(corpus, CONDITION, 0)
    with pytest.raises(InputError, match="stft must be of the condition's sample rate"):
        SimulatedMixtures(corpus, CONDITION, 1, stft=STFT.init(16000))
    with pytest.raises(InputError, match="simulated rooms"):
        SimulatedMixtures(corpus, Condition(responses=tmp_path), 1)
