"""The Bayesian mixture against scikit-learn's, which has the same priors and posterior."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from sklearn.mixture import BayesianGaussianMixture as Reference

import vbss
from vbss.models import BayesianGaussianMixture


@pytest.fixture(scope="module")
def observations():
    parts = [jr.normal(jr.key(0), (30, 2)) - 3, jr.normal(jr.key(1), (30, 2)) * 0.5 + jnp.array([[3.0, 0.0]])]
    return jnp.concatenate(parts)


class MaximisingLast(BayesianGaussianMixture):
    """Responsibilities before parameters, as scikit-learn has it."""

    schedule = ("component", "mixing_weights", "precision", "loc")


def _reference(y, responsibilities, steps):
    """scikit-learn's variational EM from given responsibilities."""
    reference = Reference(
        n_components=3, tol=0.0, reg_covar=0.0, max_iter=steps, weight_concentration_prior_type="dirichlet_distribution"
    )
    reference._check_parameters(y)
    reference._initialize(y, responsibilities)
    bounds = []
    for _ in range(steps):
        _, log_responsibilities = reference._e_step(y)
        reference._m_step(y, log_responsibilities)
        bounds.append(reference._compute_lower_bound(log_responsibilities, 0.0))
    return reference, np.array(bounds)


def test_posterior_and_bound_are_scikit_learns(observations):
    y = np.asarray(observations)
    responsibilities = np.random.default_rng(0).dirichlet(np.ones(3), len(y))
    reference, bounds = _reference(y, responsibilities, 12)
    model = BayesianGaussianMixture.init(observations, 3)
    start = {"component": jnp.asarray(responsibilities)}
    begun = vbss.fit(model, observations, start=start, max_steps=1).posterior
    model = MaximisingLast(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)})
    solution = vbss.fit(model, observations, vbss.EM(tolerance=0.0, probes=False), start=begun, max_steps=12)
    posterior = solution.posterior
    np.testing.assert_allclose(posterior["mixing_weights"].concentration, reference.weight_concentration_, rtol=1e-6)
    np.testing.assert_allclose(posterior["loc"].loc, reference.means_, rtol=1e-6, atol=1e-7)
    wishart = posterior["precision"]
    np.testing.assert_allclose(wishart.concentration, reference.degrees_of_freedom_, rtol=1e-6)
    mean = wishart.mean
    scale = reference.degrees_of_freedom_[:, None, None] * np.linalg.inv(
        reference.covariances_ * reference.degrees_of_freedom_[:, None, None]
    )
    np.testing.assert_allclose(mean, scale, rtol=1e-6)
    # scikit-learn leaves out the priors' normalisers, which are constant.
    np.testing.assert_allclose(np.diff(solution.elbo[1:]), np.diff(bounds), rtol=1e-6, atol=1e-6)


def test_components_that_are_not_needed_lose_their_weight(observations):
    solution = vbss.fit(BayesianGaussianMixture.init(observations, 4), observations, key=jr.key(3))
    weights = np.sort(solution.posterior["mixing_weights"].mean)
    assert weights[:2].max() < 0.05 and weights[2:].min() > 0.4


def test_bad_input_is_refused():
    y = jr.normal(jr.key(0), (10, 2))
    with pytest.raises(ValueError, match="num_components must be between 1 and the 10"):
        BayesianGaussianMixture.init(y, 0)
    with pytest.raises(ValueError, match="degrees_of_freedom must be above 1"):
        BayesianGaussianMixture.init(y, 2, degrees_of_freedom=0.5)
    with pytest.raises(ValueError, match="concentration must be above 0"):
        BayesianGaussianMixture.init(y, 2, concentration=0.0)
    with pytest.raises(ValueError, match="observations must have 2 columns"):
        vbss.fit(BayesianGaussianMixture.init(y, 2), jnp.ones((5, 3)))
