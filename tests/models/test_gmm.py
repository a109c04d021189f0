"""The Gaussian mixture: exact EM against scikit-learn, and the same program under NumPyro's own inference."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.contrib.funsor import config_enumerate
from numpyro.infer import MCMC, NUTS, SVI, Predictive, TraceEnum_ELBO
from numpyro.infer.autoguide import AutoDelta
from sklearn.mixture import GaussianMixture as Reference

import vbss
from vbss.context import relaxed_promotion
from vbss.models import GaussianMixture


@pytest.fixture(scope="module")
def problem():
    y = jnp.concatenate([jr.normal(jr.key(0), (50, 2)) + 2, jr.normal(jr.key(1), (30, 2)) * 0.5 - 1])
    return GaussianMixture.init(y, 2, key=jr.key(2)), y


@pytest.fixture(scope="module")
def fitted(problem):
    model, y = problem
    return vbss.fit(model, y).model, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("steps", [1, 7])
def test_log_likelihood_is_scikit_learns_after_the_same_steps(problem, steps):
    model, y = problem
    solution = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=steps)
    reference = Reference(
        2,
        tol=0.0,
        reg_covar=0.0,
        max_iter=steps,
        means_init=np.asarray(model.loc),
        weights_init=np.exp(model.log_weights),
        precisions_init=np.asarray(model.precision),
    ).fit(np.asarray(y))
    np.testing.assert_allclose(solution.model.loc, reference.means_, rtol=1e-9)
    np.testing.assert_allclose(jnp.linalg.inv(solution.model.precision), reference.covariances_, rtol=1e-8)
    # The bound after the next E-step is the log likelihood of the parameters.
    after = vbss.fit(solution.model, y, vbss.EM(tolerance=0.0), start=solution, max_steps=0)
    posterior = vbss.fit(solution.model, y, max_steps=0).posterior
    assert after.elbo[-1] <= reference.score(np.asarray(y)) * len(y) + 1e-9
    np.testing.assert_allclose(_evidence(solution.model, y, posterior), reference.score(np.asarray(y)) * len(y))


def _evidence(model, y, posterior):
    observations = vbss.expectation.observe(model, posterior, (y,))
    _, posterior = vbss.expectation.derived_update(model, posterior, (y,), "component", observations)
    return vbss.expectation.elbo(model, posterior, (y,), observations)


def test_float32_is_near_float64_for_data_far_from_the_origin(problem):
    shifted = problem[1] + 300.0
    start = GaussianMixture.init(shifted, 2, key=jr.key(2))
    double = vbss.fit(start, shifted, vbss.EM(tolerance=0.0), max_steps=10)
    start, shifted = jax.tree.map(lambda x: x.astype(jnp.float32), (start, shifted))
    single = vbss.fit(start, shifted, vbss.EM(tolerance=0.0), max_steps=10)
    assert single.model.precision.dtype == jnp.float32
    assert single.elbo.dtype == np.float32
    np.testing.assert_allclose(single.model.log_weights, double.model.log_weights, atol=1e-4)
    np.testing.assert_allclose(single.model.loc, double.model.loc, atol=1e-3)
    np.testing.assert_allclose(single.elbo[1:], double.elbo[1:], rtol=1e-5)


def test_bad_input_is_refused():
    y = jnp.ones((4, 2)) * jnp.arange(4.0)[:, None]
    with pytest.raises(ValueError, match="singular"):
        GaussianMixture.init(y, 2, key=jr.key(0))
    with pytest.raises(ValueError, match="num_components"):
        GaussianMixture.init(jr.normal(jr.key(0), (5, 2)), 6, key=jr.key(0))
    with pytest.raises(ValueError, match="shape"):
        GaussianMixture.init(jr.normal(jr.key(0), (2, 5)), 1, key=jr.key(0))


def test_numpyro_enumeration_gives_the_exact_bound(problem):
    model, y = problem
    posterior = vbss.fit(model, y, max_steps=0).posterior
    with relaxed_promotion():
        loss = TraceEnum_ELBO().loss(jr.key(0), {}, config_enumerate(model), lambda observations: None, y)
    np.testing.assert_allclose(-loss, _evidence(model, y, posterior), rtol=1e-12)


def test_numpyro_svi_learns_the_same_program(fitted):
    model, y = fitted

    def lifted(observations):
        loc = numpyro.param("loc", model.loc + 0.7)
        config_enumerate(model.replace(loc=loc))(observations)

    with relaxed_promotion():
        svi = SVI(lifted, lambda observations: None, optax.adam(0.05), TraceEnum_ELBO())
        result = svi.run(jr.key(0), 200, y, progress_bar=False)
    assert result.losses[-1] < result.losses[0] - 1.0
    np.testing.assert_allclose(result.params["loc"], model.loc, atol=0.02)


def test_numpyro_nuts_samples_the_same_program(fitted):
    model, y = fitted

    def bayesian(observations):
        loc = numpyro.sample("loc", dist.Normal(model.loc, 1.0).to_event(2))
        config_enumerate(model.replace(loc=loc))(observations)

    with relaxed_promotion():
        mcmc = MCMC(NUTS(bayesian), num_warmup=50, num_samples=50, progress_bar=False)
        mcmc.run(jr.key(1), y)
        samples = mcmc.get_samples()["loc"]
    assert np.isfinite(samples).all()
    np.testing.assert_allclose(samples.mean(0), model.loc, atol=0.2)
    assert 0.05 < samples.std(0).min() < samples.std(0).max() < 0.4


def test_numpyro_autoguide_and_predictive_run_the_same_program(fitted):
    model, y = fitted
    with relaxed_promotion():
        drawn = Predictive(handlers.uncondition(model), num_samples=400)(jr.key(2), y)
    assert drawn["observations"].shape == (400, *y.shape)
    chosen = drawn["component/onehot"]
    mean = jnp.einsum("snk,snd->kd", chosen, drawn["observations"]) / chosen.sum((0, 1))[:, None]
    np.testing.assert_allclose(mean, model.loc, atol=0.1)

    def bayesian(observations):
        loc = numpyro.sample("loc", dist.Normal(model.loc, 1.0).to_event(2))
        config_enumerate(model.replace(loc=loc))(observations)

    with relaxed_promotion():
        guide = AutoDelta(handlers.block(bayesian, expose=["loc"]))
        svi = SVI(bayesian, guide, optax.adam(0.1), TraceEnum_ELBO())
        losses = svi.run(jr.key(3), 60, y, progress_bar=False).losses
    assert losses[-1] < losses[0]
    assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), losses))
