"""Networks for arrays: their bound is the paper's loss (15), and a localizer begins at the optimum of q(w)."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss import Amortised, TrainingSettings, train
from vbss.hermitian import unpack
from vbss.models import LDACGMM
from vbss.models.cgmm_start import direction_fit, directions_apart, given_masks, mean_power
from vbss.networks import ArrayNetwork, Localizer, Separator

FREQUENCIES, FRAMES, DIRECTIONS, MICROPHONES, SOURCES = 5, 9, 6, 3, 2


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    steering_vectors = np.exp(2j * np.pi * rng.random((FREQUENCIES, DIRECTIONS, MICROPHONES)))
    model = LDACGMM.init(jnp.asarray(steering_vectors), SOURCES, loading=0.0)
    parts = rng.normal(size=(2, FREQUENCIES, FRAMES, MICROPHONES))
    return model, jnp.asarray(parts[0] + 1j * parts[1])


def networks(localizer=None, seed=0):
    separator = Separator(FREQUENCIES, SOURCES, hidden_size=4, num_layers=1, key=jr.key(seed))
    return ArrayNetwork(separator, localizer)


def loss_of_the_paper(model, mixture, masks):
    """Equation (15) with lambda in (14), term by term, with pi and phi by (11) and q(w) at its optimum for them."""
    templates = np.asarray(unpack(model.templates))
    level = np.mean(np.abs(mixture) ** 2)
    fit = np.zeros((SOURCES, DIRECTIONS))
    for d in range(DIRECTIONS):
        for f in range(FREQUENCIES):
            inverse = np.linalg.inv(templates[f, d])
            for t in range(FRAMES):
                x = np.asarray(mixture[f, t])
                density = -np.linalg.slogdet(templates[f, d])[1] - (x.conj() @ inverse @ x).real / level
                fit[:, d] += np.asarray(masks[f, t]) * density
    weights = np.asarray(masks).mean(0)
    entropy = np.sum(masks * np.log(weights[None] / masks))
    return fit, entropy


def test_the_bound_differs_from_the_papers_loss_by_a_constant(scene):
    model, mixture = scene
    gaps = []
    for seed in range(3):
        amortised = Amortised(networks(seed=seed))
        posterior = amortised.posterior(model, mixture)
        fit, entropy = loss_of_the_paper(model, mixture, posterior["source"].probs)
        direction = posterior["direction"].probs
        weights = jnp.exp(posterior.points["log_direction_weights"])
        divergence = jax.scipy.special.rel_entr(direction, weights[None]).sum()
        gaps.append(amortised.bound(model, mixture) - (np.sum(direction * fit) + entropy - divergence))
    np.testing.assert_allclose(gaps, gaps[0], rtol=0, atol=1e-6)
    # Without a constant, the bound would not depend on the level: lambda follows it.
    louder = Amortised(networks()).bound(model, 10 * mixture)
    np.testing.assert_allclose(
        louder, Amortised(networks()).bound(model, mixture) - mixture.size * 2 * np.log(10), rtol=1e-9
    )


def test_a_new_localizer_is_the_optimum_and_any_other_less(scene):
    model, mixture = scene
    localizer = Localizer(SOURCES, key=jr.key(1))
    masks = networks().separator(mixture)["source"]
    fit = direction_fit(model, mixture, masks, mean_power(mixture))
    np.testing.assert_allclose(
        jax.nn.softmax(localizer(fit, FREQUENCIES * FRAMES), -1), jax.nn.softmax(fit, -1), atol=1e-9
    )
    at_optimum = Amortised(networks(localizer)).bound(model, mixture)
    # The completed direction is at its optimum for uniform directions, from which the schedule starts.
    np.testing.assert_allclose(at_optimum, Amortised(networks()).bound(model, mixture), rtol=1e-9)
    moved = Localizer(SOURCES, num_filters=4, key=jr.key(1))
    moved = jax.tree.map(lambda leaf: leaf + 30 * jr.normal(jr.key(2), leaf.shape), moved)
    assert Amortised(networks(moved)).bound(model, mixture) < at_optimum


def test_bins_that_were_not_observed_say_nothing_of_directions(scene):
    model, mixture = scene
    is_observed = jnp.ones((FREQUENCIES, FRAMES), bool).at[:, 3].set(False)
    network = networks(Localizer(SOURCES, key=jr.key(1)))
    said = network(model, mixture, is_observed)
    other = network(model, mixture.at[:, 3].set(100.0), is_observed)
    for name, value in said.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-9)


def test_classes_that_are_alike_are_sent_apart():
    angles = 2 * np.pi * np.arange(48) / 48

    def model(positions):
        delays = positions @ np.stack([np.cos(angles), np.sin(angles)])
        waves = np.exp(1j * np.linspace(0.5, 3.0, 8)[:, None, None] * delays.T[None])
        return LDACGMM.init(jnp.asarray(waves), 3)

    fit = np.random.default_rng(0).normal(size=(3, 48))
    fit[:, 10], fit[:, 11], fit[:, 38], fit[1, 30] = 9.0, 8.0, 8.5, 7.0
    energies, line = jnp.array([1.0, 2.0, 3.0]), np.arange(4.0)[:, None] * np.array([[1.0, 0.0]])
    circle = np.stack([np.cos(angles[::12]), np.sin(angles[::12])], 1)
    chosen = np.argmax(directions_apart(model(circle), jnp.asarray(fit), energies), -1)
    assert chosen.tolist()[1:] == [38, 10]  # the loudest first; the neighbour of its direction is no other source
    chosen = np.argmax(directions_apart(model(line), jnp.asarray(fit), energies), -1)
    assert chosen.tolist()[1:] == [30, 10]  # a line cannot tell 38 from 10


def test_a_start_from_masks_that_tell_nothing(scene):
    model, mixture = scene
    even = jnp.full((FREQUENCIES, FRAMES, SOURCES), 1 / SOURCES)
    together, apart = (given_masks(model, mixture, even, are_apart=are_apart) for are_apart in (False, True))
    np.testing.assert_allclose(*together["direction"])
    assert len(set(np.argmax(apart["direction"], -1).tolist())) == SOURCES


def test_half_precision_learns_the_same(scene):
    model, mixture = scene
    model, mixture = jax.tree.map(lambda x: x.astype(jnp.float32), model), mixture.astype(jnp.complex64)
    amortised = jax.tree.map(lambda x: x.astype(jnp.float32), Amortised(networks()))
    found = []
    for precision in ("float32", "mixed"):
        settings = TrainingSettings(batch_size=2, max_epochs=3, precision=precision)
        training = train(model, amortised, [mixture] * 4, [mixture], settings)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(training.amortised))
        found.append([entry["training_bound"] for entry in training.history])
    np.testing.assert_allclose(found[1], found[0], rtol=2e-3)
    assert found[1] != found[0] and found[1][-1] > found[1][0]


def test_both_networks_learn(scene):
    model, mixture = scene
    model, mixture = jax.tree.map(lambda x: x.astype(jnp.float32), model), mixture.astype(jnp.complex64)
    amortised = Amortised(networks(Localizer(SOURCES, key=jr.key(1))))
    amortised = jax.tree.map(lambda x: x.astype(jnp.float32), amortised)
    training = train(model, amortised, [mixture] * 4, [mixture], TrainingSettings(batch_size=2, max_epochs=5))
    assert training.history[-1]["validation_bound"] > amortised.bound(model, mixture)
    learnt = training.amortised.network.localizer
    assert (learnt.weights[-1] != 0).any()
