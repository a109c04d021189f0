"""The order in which EM visits its blocks."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.models import GaussianMixture


@pytest.fixture(scope="module")
def problem():
    centers = jnp.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    y = centers[jr.randint(jr.key(0), (40,), 0, 3)] + jr.normal(jr.key(1), (40, 2))
    return GaussianMixture.init(y, 3, key=jr.key(2)), y


def joint(model, y):
    deviation = y[:, None] - model.loc[None]
    squares = jnp.einsum("nkd,kde,nke->nk", deviation, model.precision, deviation)
    constant = model.log_weights + jnp.linalg.slogdet(model.precision)[1] / 2 - jnp.log(2 * jnp.pi)
    return constant[None] - squares / 2


def test_without_a_step_the_posterior_is_that_of_the_given_parameters(problem):
    model, y = problem
    solution = vbss.fit(model, y, max_steps=0)
    np.testing.assert_allclose(solution.posterior["component"].probs, jax.nn.softmax(joint(model, y)), atol=1e-9)
    np.testing.assert_allclose(solution.elbo, [jax.nn.logsumexp(joint(model, y), -1).sum()], rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_every_bound_is_the_likelihood_and_the_posterior_that_of_the_learnt_parameters(problem, num_steps):
    model, y = problem
    solution = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=num_steps)
    learnt = joint(solution.model, y)
    np.testing.assert_allclose(solution.elbo[-1], jax.nn.logsumexp(learnt, -1).sum(), rtol=1e-9)
    np.testing.assert_allclose(solution.posterior["component"].probs, jax.nn.softmax(learnt), atol=1e-9)


def test_parameters_are_first_learnt_from_given_responsibilities(problem):
    model, y = problem
    probs = jax.nn.softmax(jr.normal(jr.key(3), (40, 3)))
    solution = vbss.fit(model, y, vbss.EM(tolerance=0.0), start={"component": probs}, max_steps=1)
    expected = (probs.T @ y) / probs.sum(0)[:, None]
    np.testing.assert_allclose(solution.model.loc, expected, atol=1e-9)


def test_a_frozen_model_is_only_informed(problem):
    model, y = problem
    algorithm = vbss.EM(frozen=("log_weights", "loc", "precision"))
    solution = vbss.fit(model, y, algorithm, max_steps=2)
    np.testing.assert_allclose(solution.posterior["component"].probs, jax.nn.softmax(joint(model, y)), atol=1e-9)
    np.testing.assert_array_equal(solution.model.loc, model.loc)
