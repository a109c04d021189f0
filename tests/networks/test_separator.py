"""The separator: what it says is a posterior, does not depend on level, and learns from mixtures alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss import Amortised, TrainingSettings, train
from vbss.errors import InputError
from vbss.models import LDACGMM
from vbss.networks import Separator

FREQUENCIES, FRAMES, MICROPHONES = 6, 20, 3


def mean_bound(model, amortised, items):
    bound = eqx.filter_jit(lambda item: amortised.bound(model, item))
    return np.mean([bound(jnp.asarray(item)) for item in items])


def separator(seed=0):
    made = Separator(FREQUENCIES, 2, hidden_size=8, num_layers=2, key=jr.key(seed))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), made)


def mixtures(steering_vectors, count, seed=0):
    """Two plane waves, one of which is silent in half of the frames of each; silence tells them apart."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        shape = (FREQUENCIES, FRAMES, 2)
        spectra = rng.gamma(0.5, size=shape) * np.exp(2j * np.pi * rng.random(shape))
        spectra[::2, :, 0] *= 0.05  # one source has the even frequencies, the other the odd ones
        spectra[1::2, :, 1] *= 0.05
        chosen = rng.choice(steering_vectors.shape[1], 2, replace=False)
        mixture = np.einsum("ftk,fkm->ftm", spectra, steering_vectors[:, chosen])
        found.append((mixture + 0.01 * rng.normal(size=mixture.shape)).astype(np.complex64))
    return found


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(1)
    steering_vectors = np.exp(2j * np.pi * rng.random((FREQUENCIES, 5, MICROPHONES)))
    return LDACGMM.init(jnp.asarray(steering_vectors, jnp.complex64), 2), mixtures(steering_vectors, 40)


def test_it_says_probabilities_of_every_bin(scene):
    mixture = jnp.asarray(scene[1][0])
    found = separator()(mixture)["source"]
    assert found.shape == (FREQUENCIES, FRAMES, 2) and found.dtype == jnp.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(found, separator()(1000 * mixture)["source"], atol=1e-4)
    np.testing.assert_array_equal(found, separator()(mixture)["source"])
    assert (found != separator(1)(mixture)["source"]).any()
    assert np.isfinite(separator()(jnp.zeros_like(mixture))["source"]).all()


def test_it_hears_the_past_and_what_comes(scene):
    mixture = jnp.asarray(scene[1][0])
    change = jax.grad(lambda x: separator()(x.astype(jnp.complex64))["source"][:, 10, 0].sum())(jnp.abs(mixture))
    heard = np.abs(change).sum((0, 2))
    assert (heard > 0).all()


def test_it_learns_from_mixtures_alone(scene):
    model, corpus = scene
    amortised = Amortised(separator())
    settings = TrainingSettings(batch_size=4, max_epochs=25, learning_rate=0.01, patience=5)
    before = mean_bound(model, amortised, corpus[32:])
    training = train(model, amortised, corpus[:32], corpus[32:], settings)
    assert training.history[-1]["validation_bound"] > before + 0.05 * FREQUENCIES * FRAMES
    # It has found what no label told: each source has frequencies of its own.
    masks = np.asarray(training.amortised.network(jnp.asarray(corpus[39]))["source"])[..., 0].mean(1)
    assert abs(masks[::2].mean() - masks[1::2].mean()) > 0.5


@pytest.mark.parametrize("size", [{"hidden_size": 0}, {"num_layers": 0}])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(InputError, match=next(iter(size))):
        Separator(FREQUENCIES, 2, key=jr.key(0), **size)


def test_a_mixture_of_other_frequencies_is_refused(scene):
    with pytest.raises(InputError, match="the network's 6 frequencies, got 5"):
        separator()(jnp.asarray(scene[1][0])[:5])
