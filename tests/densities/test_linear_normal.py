"""A regression behind gates is the normal density with that mean, whatever the axes of its two factors."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import vbss
from vbss.densities import LinearNormal

N, D, K, SIZE = 5, 3, 4, 2


@pytest.fixture(scope="module")
def parts():
    """Coefficients of components, regressors of observations, precisions of channels; a gate; observations."""
    rng = np.random.default_rng(0)
    coefficients, regressors = rng.standard_normal((K, D, SIZE)), rng.standard_normal((N, SIZE))
    precision, states = np.exp(rng.standard_normal(D)), rng.integers(K, size=N)
    return coefficients, regressors, precision, states, rng.standard_normal((N, D))


def gated(parts, gate=None, dtype=None):
    coefficients, regressors, precision, states, _ = (jnp.asarray(part, dtype) for part in parts)
    density = LinearNormal(("kdi", coefficients), ("ni", regressors), ("d", precision))
    gate = jax.nn.one_hot(states.astype(int), K, dtype=coefficients.dtype) if gate is None else gate
    return vbss.Gated("nd", {"nk": gate}, density)


def log_probs(parts):
    """Of every state, (N, K, D)."""
    coefficients, regressors, precision, _, value = parts
    loc = np.einsum("kdi,ni->nkd", coefficients, regressors)
    return stats.norm.logpdf(value[:, None], loc, precision**-0.5)


def test_it_is_the_normal_density_of_the_selected_regression(parts):
    *_, states, value = parts
    expected, density = log_probs(parts)[np.arange(N), states], gated(parts)
    assert density.batch_shape == (N, D) and density.event_shape == ()
    np.testing.assert_allclose(density.log_prob(jnp.asarray(value)), expected, rtol=1e-10)
    mask = np.random.default_rng(1).uniform(size=(N, D)) < 0.6
    statistics = density.statistics(jnp.asarray(value))
    np.testing.assert_allclose(density.total(statistics), expected.sum(), rtol=1e-10)
    np.testing.assert_allclose(density.total(statistics, jnp.asarray(mask)), expected[mask].sum(), rtol=1e-10)


def test_the_total_at_probabilities_is_the_expectation(parts):
    gate = jax.nn.softmax(jr.normal(jr.key(0), (N, K)))
    density = gated(parts, gate)
    found = density.total(density.statistics(jnp.asarray(parts[-1])))
    np.testing.assert_allclose(found, (np.asarray(gate)[..., None] * log_probs(parts)).sum(), rtol=1e-10)


def test_the_axes_may_be_in_one_array_and_there_need_be_no_gate(parts):
    coefficients, regressors, precision, states, value = parts
    of_each = jnp.asarray(coefficients[states])
    plain = vbss.Gated("nd", {}, LinearNormal(("ndi", of_each), ("ni", jnp.asarray(regressors)), ("d", precision)))
    np.testing.assert_allclose(plain.log_prob(jnp.asarray(value)), gated(parts).log_prob(jnp.asarray(value)))


def test_draws_have_the_moments_of_the_regression(parts):
    coefficients, regressors, precision, states, _ = parts
    num = 4000
    draws = np.asarray(gated(parts).sample(jr.key(0), (num,)))
    assert draws.shape == (num, N, D)
    loc = np.einsum("ndi,ni->nd", coefficients[states], regressors)
    assert (np.abs(draws.mean(0) - loc) < 5 / np.sqrt(precision * num)).all()
    np.testing.assert_allclose(draws.var(0) * precision, 1, atol=0.15)


def test_single_precision_stays_single(parts):
    density, value = gated(parts, dtype=jnp.float32), jnp.asarray(parts[-1], jnp.float32)
    assert density.log_prob(value).dtype == density.sample(jr.key(0)).dtype == jnp.float32
    np.testing.assert_allclose(density.log_prob(value), gated(parts).log_prob(jnp.asarray(parts[-1])), rtol=1e-4)


@pytest.mark.parametrize(
    ("coefficients", "regressors", "message"),
    [
        (("kdi", (K, D, 2)), ("nj", (N, 2)), "must end with the same axis"),
        (("kdi", (K, D, 2)), ("", ()), "must end with the same axis"),
        (("kdi", (K, D, 2)), ("ni", (N, 3)), "event axis of one size"),
        (("", ()), ("", ()), "event axis of one size"),
    ],
)
def test_factors_that_do_not_belong_together_are_refused(coefficients, regressors, message):
    pair = [(axes, jnp.ones(shape)) for axes, shape in (coefficients, regressors)]
    with pytest.raises(ValueError, match=message):
        LinearNormal(*pair, ("d", jnp.ones(D)))


def test_an_event_axis_that_is_a_plate_is_refused():
    density = LinearNormal(("kn", jnp.ones((K, N))), ("n", jnp.ones(N)), ("", jnp.ones(())))
    with pytest.raises(ValueError, match="also a plate"):
        vbss.Gated("n", {"nk": jnp.ones((N, K))}, density)
