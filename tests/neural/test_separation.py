"""Separation by a network: sounds that add up to the mixture, at its rate and level, and errors with their reason."""

import inspect
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbss
from tests.neural.conftest import CONDITION, TRANSFORM
from vbss.audio import Recording
from vbss.errors import InputError
from vbss.scenes import HIGH_VOICE, SpeechCorpus, speech_like
from vbss.training import SimulatedMixtures

RATE = 8000


@pytest.fixture(scope="module")
def recording():
    return Recording(speech_like(HIGH_VOICE, 1.0, RATE, seed=9).astype(np.float32)[None], RATE)


def test_what_was_trained_is_a_separator_of_the_corpus(training):
    separator, progress = training
    assert separator.num_classes == 2 and separator.sample_rate == RATE
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(separator))
    assert len(progress.history) == 2 and progress.status is vbss.Status.max_steps


def test_it_can_be_stored(training, recording, tmp_path):
    vbss.save(tmp_path / "network.vbss", training.separator)
    found = vbss.separate_neural(recording, vbss.load(tmp_path / "network.vbss"))
    np.testing.assert_array_equal(found.sources, vbss.separate_neural(recording, training.separator).sources)
    # Also where nothing but this was done before.
    program = f"import vbss; print(vbss.load({str(tmp_path / 'network.vbss')!r}).num_classes)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "2\n"


def test_sources_add_up_to_the_mixture_and_come_by_their_energy(training, recording):
    found = vbss.separate_neural(recording, training.separator)
    assert found.sources.shape == (2, RATE) and found.sources.dtype == np.float32
    np.testing.assert_allclose(found.sources.sum(0), recording.samples[0], atol=1e-5)
    assert found.energy_shares[0] >= found.energy_shares[1]
    np.testing.assert_allclose(found.energy_shares.sum(), 1)
    np.testing.assert_allclose(found.masks.sum(-1), 1, atol=1e-5)
    assert sorted(found.classes.tolist()) == [0, 1]


def test_level_does_not_matter_and_fewer_sources_are_the_strongest(training, recording):
    found = vbss.separate_neural(recording, training.separator)
    faint = vbss.separate_neural(Recording(1e-12 * recording.samples, RATE), training.separator, 1)
    np.testing.assert_allclose(1e12 * faint.sources[0], found.sources[0], atol=1e-4 * np.abs(found.sources).max())
    assert len(faint.sources) == 1 and faint.classes[0] == found.classes[0]


def test_another_rate_comes_back(training):
    fast = Recording(speech_like(HIGH_VOICE, 1.0, 16000, seed=9)[None], 16000)
    found = vbss.separate_neural(fast, training.separator)
    assert found.sources.shape == (2, 16000) and found.sources.dtype == np.float64 and found.sample_rate == 16000
    assert any("above 4 kHz is in no source" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("channels", "rate", "samples", "number", "message"),
    [
        (2, RATE, RATE, None, "one channel"),
        (1, 4000, RATE, None, "8000 Hz or more"),
        (1, RATE, 100, None, "0.032 s or more"),
        (1, RATE, RATE, 3, "num_sources"),
    ],
)
def test_what_it_cannot_separate_is_said(training, channels, rate, samples, number, message):
    sound = np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)
    with pytest.raises(InputError, match=message):
        vbss.separate_neural(Recording(sound, rate), training.separator, number)
    with pytest.raises(InputError, match="every channel is constant"):
        vbss.separate_neural(Recording(np.ones_like(sound[:1]), 2 * RATE), training.separator)


def test_arguments_of_another_kind_are_named(training, recording, speech):
    separator = training.separator
    broken = eqx.tree_at(lambda trained: trained.network.bias, separator, jnp.nan * separator.network.bias)
    separate_neural = inspect.unwrap(vbss.separate_neural)  # the annotations are checked in tests only
    with pytest.raises(InputError, match="trained holds weights that are infinite or nan"):
        separate_neural(recording, broken)
    with pytest.raises(InputError, match="recording must be a vbss.audio.Recording, got list"):
        separate_neural([], separator)
    with pytest.raises(InputError, match="microphone_positions must be given"):
        inspect.unwrap(vbss.separate_from_network)(recording, None, separator)
    train, positions = inspect.unwrap(vbss.train_separator), np.eye(3)
    corpus = SimulatedMixtures(SpeechCorpus.read(speech), CONDITION, 2, stft=TRANSFORM)
    for arguments, message in (
        (([], corpus, positions), "corpus must be SimulatedMixtures"),
        ((corpus, corpus, 0 * positions), "microphone"),
        ((corpus, corpus, positions, 7), "num_sources"),
        ((corpus, corpus, positions, "2"), "num_sources"),
    ):
        with pytest.raises(InputError, match=message):
            train(*arguments)


def test_a_model_of_all_microphones_starts_where_the_network_says(training, mixtures, speech):
    scene = vbss.scenes.random_scene(vbss.scenes.SpeechCorpus.read(speech), CONDITION, seed=3)
    whole = Recording(scene.mixture, RATE)
    options = {"model": "cgmm", "window": 0.064, "hop": 0.032, "num_directions": 24, "max_steps": 3}
    found = vbss.separate_from_network(whole, scene.microphone_positions, training.separator, **options)
    assert found.sources.shape == (2, RATE) and found.directions is not None and np.isfinite(found.directions).all()
    assert found.number_probabilities is None
    counted = vbss.separate_from_network(whole, scene.microphone_positions, training.separator, "auto", **options)
    assert counted.number_probabilities.shape == (2,) and counted.number_probabilities.sum() == pytest.approx(1)
    assert len(counted.sources) == 1 + np.argmax(counted.number_probabilities)
    with pytest.raises(InputError, match="num_sources"):
        vbss.separate_from_network(whole, scene.microphone_positions, training.separator, "few", **options)
    with pytest.raises(InputError, match="directions"):
        vbss.separate_from_network(whole, scene.microphone_positions, training.separator, model="cacgmm")


def test_a_picture_shows_it(training, recording):
    figure = vbss.plots.plot_neural_separation(recording, vbss.separate_neural(recording, training.separator))
    assert [axis.get_title("left") for axis in figure.axes if axis.get_title("left")] == [
        "mixture", "source 1", "mask of source 1", "source 2", "mask of source 2",
    ]  # fmt: skip
    other = Recording(recording.samples[:, 1:], RATE)
    with pytest.raises(InputError, match="recording has shape"):
        vbss.plots.plot_neural_separation(other, vbss.separate_neural(recording, training.separator))
    bounds, rates = vbss.plots.plot_training(training.training).axes
    assert len(bounds.lines) == 2 and len(bounds.lines[0].get_xdata()) == 2 and rates.get_ylabel() == "learning rate"
