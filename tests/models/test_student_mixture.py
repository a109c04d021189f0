"""The Student mixture: degrees of freedom learnt numerically, and outliers that do not pull."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import vbss
from vbss.models import GaussianMixture, StudentMixture


@pytest.fixture(scope="module")
def fitted():
    y = jnp.asarray(stats.t(3.0).rvs((400, 1), random_state=0)) * 1.5 + 2
    return vbss.fit(StudentMixture.init(y, 1, key=jr.key(0)), y, vbss.EM(tolerance=1e-9), max_steps=300), y


def test_one_component_is_scipys_maximum_likelihood(fitted):
    solution, y = fitted
    degrees_of_freedom, loc, scale = stats.t.fit(np.asarray(y)[:, 0])
    np.testing.assert_allclose(solution.model.degrees_of_freedom, degrees_of_freedom, rtol=0.02)
    np.testing.assert_allclose(solution.model.loc[:, 0], loc, rtol=1e-3)
    np.testing.assert_allclose(solution.model.precision[:, 0, 0] ** -0.5, scale, rtol=1e-2)
    log_likelihood = stats.t(degrees_of_freedom, loc, scale).logpdf(np.asarray(y)).sum()
    np.testing.assert_allclose(solution.elbo[-1], log_likelihood, rtol=1e-5)
    assert np.diff(solution.elbo).min() > -1e-9


def test_outliers_pull_less_than_in_a_gaussian_mixture():
    y = jnp.concatenate([jr.normal(jr.key(0), (60, 1)), jnp.array([[25.0], [30.0]])])
    robust = vbss.fit(StudentMixture.init(y, 1, key=jr.key(1)), y).model
    plain = vbss.fit(GaussianMixture.init(y, 1, key=jr.key(1)), y).model
    assert abs(float(robust.loc[0, 0])) < 0.5 * abs(float(plain.loc[0, 0]))
