"""The bound for training separators: the model's own where nothing is tempered, and one that masks raise at once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.errors import InputError
from vbss.hermitian import inverse_and_log_determinant
from vbss.models import LDACGMM
from vbss.networks import ArrayNetwork, Separator
from vbss.training import SpatialBound
from vbss.training.spatial import _peaks

FREQUENCIES, FRAMES, DIRECTIONS, MICROPHONES, SOURCES = 6, 12, 24, 4, 2


@pytest.fixture(scope="module")
def scene():
    """Two plane waves, each with bins of its own."""
    rng = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    positions = np.stack([np.cos(angles[::6]), np.sin(angles[::6])], 1)
    delays = positions @ np.stack([np.cos(angles), np.sin(angles)])
    wave_numbers = np.linspace(0.5, 2.5, FREQUENCIES)
    steering_vectors = np.exp(1j * wave_numbers[:, None, None] * delays.T[None])
    truth = rng.random((FREQUENCIES, FRAMES)) < 0.5
    spectrum = rng.normal(size=(2, FREQUENCIES, FRAMES))
    chosen = np.where(truth[..., None], steering_vectors[:, None, 3], steering_vectors[:, None, 13])
    mixture = (spectrum[0] + 1j * spectrum[1])[..., None] * chosen
    mixture = mixture + 0.05 * rng.normal(size=mixture.shape)
    model = LDACGMM.init(jnp.asarray(steering_vectors), SOURCES, diffuseness=0.03)
    return model, jnp.asarray(mixture), truth


def network(seed=0, separator=None):
    made = Separator(FREQUENCIES, SOURCES, hidden_size=4, num_layers=1, key=jr.key(seed))
    return ArrayNetwork(made if separator is None else separator)


def test_with_an_exponent_of_one_it_is_the_bound_of_the_model(scene):
    model, mixture, _ = scene
    bound = SpatialBound(network(), exponent=1.0, by_magnitude=False)
    peaks = np.asarray(_peaks(model, mixture))
    masks = bound.network.separator(mixture)["source"]
    # The same by the engine, at both ways to give the peaks to the classes.
    precision, _ = inverse_and_log_determinant(model.templates)
    found = []
    for direction in (peaks, peaks[::-1]):
        probs = jnp.asarray(direction) * (1 - 1e-9) + 1e-9 / DIRECTIONS
        said = {"source": masks, "direction": probs}
        amortised = vbss.Amortised(lambda mixture, said=said: said, completed=["power"])
        posterior = amortised.posterior(model, mixture)
        # Without what a one-hot direction says of itself, and the prior of H.
        found.append(amortised.bound(model, mixture) + SOURCES * np.log(DIRECTIONS))
        assert np.isfinite(posterior.points["power"]).all()
    expected = np.logaddexp(*map(float, found)) - np.log(2)
    prior = vbss.distributions.ComplexInverseWishart(
        model.degrees_of_freedom, (model.degrees_of_freedom - MICROPHONES) * model.templates
    )
    mode = posterior.factors["spatial_covariance"].held
    nu = float(model.degrees_of_freedom)
    gauge = (nu - MICROPHONES) / (nu + MICROPHONES)
    np.testing.assert_allclose(mode["precision"], precision / gauge, rtol=1e-9, atol=1e-9)
    bins = FREQUENCIES * FRAMES
    constant = -bins * MICROPHONES * (np.log(np.pi) + 1 - np.log(MICROPHONES)) + prior.expected_log_prob(mode).sum()
    np.testing.assert_allclose(bound.bound(model, mixture) + constant, expected, rtol=1e-7)


def test_true_masks_are_its_maximum_however_classes_are_named(scene):
    model, mixture, truth = scene

    class Told(Separator):
        share: jax.Array

        def __init__(self, share):
            super().__init__(FREQUENCIES, SOURCES, hidden_size=1, num_layers=1, key=jr.key(0))
            self.share = jnp.asarray(share)

        def logits(self, mixture):
            return jnp.log(jnp.stack([self.share, 1 - self.share], -1))

    def bound(share):
        return float(SpatialBound(network(separator=Told(np.clip(share, 1e-6, 1 - 1e-6)))).bound(model, mixture))

    best = bound(truth)
    np.testing.assert_allclose(best, bound(~truth), rtol=1e-9)
    rng = np.random.default_rng(1)
    others = [
        bound(0.5 * np.ones_like(truth, float)),
        bound(np.ones_like(truth, float)),
        bound(rng.random(truth.shape)),
    ]
    assert best > max(others) + 5


def test_the_peaks_are_where_the_sources_are(scene):
    model, mixture, _ = scene
    assert sorted(np.argmax(_peaks(model, mixture), -1).tolist()) == [3, 13]


def test_level_and_silence_do_no_harm(scene):
    model, mixture, _ = scene
    bound = SpatialBound(network())
    np.testing.assert_allclose(
        jax.grad(lambda scale: bound.bound(model, scale * mixture))(1.0),
        0.2 * -2 * MICROPHONES * mixture[..., 0].size,
        rtol=0.01,
    )
    silent = bound.bound(model, mixture.at[:, 4:6].set(0))
    assert np.isfinite(silent)


def test_what_it_cannot_do_is_said(scene):
    model, mixture, _ = scene
    with pytest.raises(InputError, match="exponent"):
        SpatialBound(network(), exponent=0.0)
    for num_sources in (1, 3):
        with pytest.raises(InputError, match="2 classes"):
            SpatialBound(network()).bound(replace(model, num_sources=num_sources), mixture)
    noisy = LDACGMM.init(jnp.ones((FREQUENCIES, 4, 3), complex), 2, has_noise=True)
    with pytest.raises(InputError, match="class of noise"):
        SpatialBound(network()).bound(noisy, mixture)
