"""Amortised inference: the bound is that of the model at the same q, with an exact gradient, for any model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array

import vbss
from vbss import Amortised
from vbss.errors import InputError
from vbss.models import LDACGMM, PPAM, GaussianMixture

K = 3


class Logits(eqx.Module):
    """Says q of one site by free numbers, whatever the data: the network that has nothing to learn."""

    logits: Array
    site: str = eqx.field(static=True)

    def __call__(self, *data):
        return {self.site: jax.nn.softmax(self.logits, -1)}


class Linear(eqx.Module):
    weight: Array

    def __call__(self, observations):
        return {"component": jax.nn.softmax(observations @ self.weight, -1)}


@pytest.fixture(scope="module")
def mixture():
    keys = jr.split(jr.key(0), 3)
    observations = jnp.concatenate([jr.normal(keys[0], (15, 2)) - 1.5, jr.normal(keys[1], (15, 2)) + 1.5])
    return GaussianMixture.init(observations, K, key=keys[2]), (observations,)


@pytest.fixture(scope="module")
def array():
    keys = jr.split(jr.key(1), 2)
    steering_vectors, mixture = jr.normal(keys[0], (3, 4, 2), complex), jr.normal(keys[1], (3, 6, 2), complex)
    return LDACGMM.init(steering_vectors, 2), (mixture,)


@pytest.fixture(scope="module")
def head():
    keys = jr.split(jr.key(2), 2)
    positions = jr.uniform(keys[0], (20, 1), minval=-1.0, maxval=1.0)
    cues = jnp.sin(2 * positions) + 0.1 * jr.normal(keys[1], (20, 4))
    return PPAM.init(positions, cues, K), (positions, cues)


SHAPES = {"mixture": ("component", (30, K)), "array": ("source", (3, 6, 2)), "head": ("piece", (20, K))}


@pytest.fixture(params=SHAPES)
def case(request):
    model, data = request.getfixturevalue(request.param)
    site, shape = SHAPES[request.param]
    return model, data, Logits(jr.normal(jr.key(3), shape), site)


def test_the_bound_is_that_of_variational_em_at_the_same_q(case):
    model, data, network = case
    amortised = Amortised(network)
    posterior = amortised.posterior(model, *data)
    frozen = (*model.parameter_kinds(), *posterior.points)
    for updates in ("auto", "derived"):  # the first bound of a run is that of its start
        found = vbss.fit(model, data, vbss.EM(0.0, updates, frozen=frozen), start=posterior, max_steps=1).elbo[0]
        np.testing.assert_allclose(amortised.bound(model, *data), found, rtol=1e-9)
    np.testing.assert_allclose(Amortised(network, updates="derived").bound(model, *data), found, rtol=1e-8)


def test_the_gradient_is_exact(case):
    model, data, network = case

    @jax.jit
    def bound(logits):
        return Amortised(Logits(logits, network.site)).bound(model, *data)

    direction = jr.normal(jr.key(4), network.logits.shape)
    slope = jnp.vdot(jax.grad(bound)(network.logits), direction)
    step = 1e-5
    difference = (bound(network.logits + step * direction) - bound(network.logits - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_a_free_q_reaches_the_fixed_point_of_variational_em(array):
    model, data = array
    start = Logits(jr.normal(jr.key(5), (3, 6, 2)), "source")

    def bound(logits):
        return Amortised(Logits(logits, "source"), num_sweeps=25).bound(model, *data)

    @jax.jit
    def climbed(logits):
        def step(_, carry):
            logits, moved = carry
            gradient = jax.grad(bound)(logits)
            moved = 0.9 * moved + gradient
            return logits + 0.05 * moved, moved

        logits, _ = jax.lax.fori_loop(0, 800, step, (logits, jnp.zeros_like(logits)))
        return logits

    logits = climbed(start.logits)
    amortised = Amortised(Logits(logits, "source"), num_sweeps=25)
    reached = amortised.bound(model, *data)
    solution = vbss.fit(model, data, vbss.EM(0.0), start=amortised.posterior(model, *data), max_steps=100)
    assert solution.elbo[-1] - reached < 1e-3 * abs(reached)
    assert reached - bound(start.logits) > 10 * (solution.elbo[-1] - reached)


def test_natural_parameters_may_be_said(mixture):
    model, data = mixture
    logits = jr.normal(jr.key(6), (30, K))
    by_probabilities = Amortised(Logits(logits, "component")).bound(model, *data)
    by_naturals = Amortised(lambda y: {"component": {"onehot": logits}}).bound(model, *data)
    np.testing.assert_allclose(by_naturals, by_probabilities, rtol=1e-12)


def test_only_the_blocks_asked_for_follow(array):
    model, data = array
    network = Logits(jr.normal(jr.key(7), (3, 6, 2)), "source")
    all_of_them, fewer = Amortised(network), Amortised(network, completed=["direction"])
    assert fewer.bound(model, *data) < all_of_them.bound(model, *data)
    posterior = fewer.posterior(model, *data)
    assert np.ptp(posterior["log_direction_weights"]) == 0


def test_inference_goes_on_from_what_the_network_says(mixture):
    model, data = mixture
    amortised = Amortised(Linear(jr.normal(jr.key(8), (2, K))))
    solution = vbss.fit(model, data, start=amortised.posterior(model, *data), max_steps=5)
    assert solution.elbo[1] > solution.elbo[0]
    np.testing.assert_allclose(solution.elbo[0], amortised.bound(model, *data), rtol=1e-12)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (jnp.ones((30, K)), "network must return a dict"),
        ({}, "network must return a dict"),
        ({"nothing": jnp.ones((30, K))}, "'nothing' is not a site"),
        ({"component": jnp.ones((30, 2))}, "must have shape"),
        ({"component": {"onehot": jnp.ones((30, 2))}}, "natural parameters of shapes"),
        ({"component": {"logits": jnp.ones((30, K))}}, "natural parameters of shapes"),
    ],
)
def test_what_is_no_posterior_is_refused(mixture, said, message):
    model, data = mixture
    with pytest.raises(InputError, match=message):
        Amortised(lambda y: said).bound(model, *data)


def test_impossible_settings_are_refused(mixture):
    model, data = mixture
    with pytest.raises(InputError, match="num_sweeps"):
        Amortised(Linear(jnp.ones((2, K))), num_sweeps=0)
    with pytest.raises(InputError, match="'component' is what the network says already"):
        Amortised(Linear(jnp.ones((2, K))), completed=["component"]).bound(model, *data)
    with pytest.raises(InputError, match="observations must have 2 columns"):
        Amortised(Linear(jnp.ones((3, K)))).posterior(model, jnp.ones((30, 3)))
    with pytest.raises(InputError, match="'nothing' is not a block"):
        Amortised(Linear(jnp.ones((2, K))), completed=["nothing"]).bound(model, *data)
