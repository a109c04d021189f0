"""Factor analysis and probabilistic PCA against closed forms and scikit-learn."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as Reference

import vbss
from vbss.models import FactorAnalysis


@pytest.fixture(scope="module")
def observations():
    loading = jr.normal(jr.key(0), (5, 2))
    return jr.normal(jr.key(1), (80, 2)) @ loading.T + 0.5 * jr.normal(jr.key(2), (80, 5)) + 1


def _log_likelihood(model, y):
    noise = np.diag(np.broadcast_to(1 / model.observation_precision, y.shape[1:]))
    covariance = np.asarray(model.loading @ model.loading.T) + noise
    return stats.multivariate_normal.logpdf(np.asarray(y), np.asarray(model.offset), covariance).sum()


@pytest.fixture(scope="module")
def principal(observations):
    model = FactorAnalysis.init(observations, 2, key=jr.key(3), isotropic=True)
    return vbss.fit(model, observations, vbss.EM(tolerance=0.0), max_steps=400)


def test_probabilistic_pca_finds_the_principal_subspace(observations, principal):
    reference = PCA(2).fit(np.asarray(observations))
    model = principal.model
    np.testing.assert_allclose(1 / model.observation_precision, reference.noise_variance_ * 79 / 80, rtol=1e-4)
    found = np.linalg.qr(model.loading)[0]
    overlap = np.linalg.svd(reference.components_ @ found)[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-5)


def test_the_bound_of_exact_em_is_the_log_likelihood(observations, principal):
    names = tuple(principal.model.parameter_kinds())
    exact = vbss.fit(principal.model, observations, vbss.EM(frozen=names), max_steps=1)
    np.testing.assert_allclose(exact.elbo[-1], _log_likelihood(principal.model, observations), rtol=1e-10)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_optimum_is_ours(observations):
    reference = Reference(2, tol=1e-8, max_iter=3000, svd_method="lapack").fit(np.asarray(observations))
    found = FactorAnalysis(
        jnp.asarray(reference.components_.T), jnp.asarray(reference.mean_), jnp.asarray(1 / reference.noise_variance_)
    )
    solution = vbss.fit(found, observations, vbss.EM(tolerance=0.0), max_steps=20)
    score = reference.score(np.asarray(observations)) * 80
    np.testing.assert_allclose(solution.elbo[1], score, rtol=1e-8)
    assert solution.elbo[-1] - score < 1e-3


def test_bad_input_is_refused(observations):
    with pytest.raises(ValueError, match="num_factors must be between 1 and 4 for 5 dimensions"):
        FactorAnalysis.init(observations, 5, key=jr.key(0))
    with pytest.raises(ValueError, match="must vary in every dimension"):
        FactorAnalysis.init(observations.at[:, 0].set(1.0), 2, key=jr.key(0))
