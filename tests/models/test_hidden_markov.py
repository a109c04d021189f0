"""The hidden Markov model against hmmlearn and against its own marginals."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.models import HiddenMarkovModel


@pytest.fixture(scope="module")
def problem():
    state = np.repeat(np.array([0, 1, 0, 2, 1]), 12)
    means = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, 4.0]])
    y = jnp.asarray(means[state]) + jr.normal(jr.key(0), (60, 2))
    return HiddenMarkovModel.init(y, 3, key=jr.key(1)), y


def _reference(model):
    hmm = pytest.importorskip("hmmlearn.hmm", reason="hmmlearn is not installed")
    reference = hmm.GaussianHMM(
        3, "full", min_covar=0.0, covars_prior=0.0, covars_weight=0.0, n_iter=5, tol=-np.inf, init_params=""
    )
    reference.startprob_ = np.exp(model.log_initial)
    reference.transmat_ = np.exp(model.log_transition)
    reference.means_ = np.asarray(model.loc)
    reference.covars_ = np.linalg.inv(model.precision)
    return reference


def test_likelihood_and_posterior_are_hmmlearns(problem):
    model, y = problem
    reference = _reference(model)
    log_likelihood, probs = reference.score_samples(np.asarray(y))
    names = tuple(model.parameter_kinds())
    exact = vbss.fit(model, y, vbss.EM(frozen=names), max_steps=1)
    np.testing.assert_allclose(exact.elbo[-1], log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(exact.posterior["state"].probs, probs, atol=1e-8)


def test_times_that_were_not_observed_are_integrated_out(problem):
    model, y = problem
    is_observed = jnp.arange(60) < 50
    names = tuple(model.parameter_kinds())
    partly = vbss.fit(model, (y.at[50:].set(1e3), is_observed), vbss.EM(frozen=names), max_steps=1)
    alone = vbss.fit(model, y[:50], vbss.EM(frozen=names), max_steps=1)
    np.testing.assert_allclose(partly.elbo[-1], alone.elbo[-1], rtol=1e-10)
    np.testing.assert_allclose(partly.posterior["state"].probs[:50], alone.posterior["state"].probs, atol=1e-10)


def test_em_finds_the_states(problem):
    model, y = problem
    solution = vbss.fit(model, y)
    assert solution.status is vbss.Status.converged
    assert np.diff(solution.elbo).min() > -1e-9
    state = np.asarray(solution.posterior["state"].probs.argmax(-1))
    assert all(len(np.unique(part[2:-2])) == 1 for part in np.split(state, 5))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"observations must have shape \(N, D\)"):
        HiddenMarkovModel.init(jnp.ones((2, 3)), 2, key=jr.key(0))
