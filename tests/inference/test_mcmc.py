"""Draws of NUTS against closed forms, quadrature, NumPyro's own enumeration and exact posteriors; resuming; errors."""

import sys
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro import diagnostics
from numpyro.contrib.funsor import config_enumerate

import vbss
from vbss.context import relaxed_promotion


def _check_means(samples, expected):
    """The mean of draws (chains, draws, ...) is within 5 Monte Carlo standard errors of what is expected."""
    samples = np.asarray(samples)
    error = samples.std((0, 1)) / np.sqrt(diagnostics.effective_sample_size(samples))
    assert (np.abs(samples.mean((0, 1)) - expected) < 5 * error).all()


class Conjugate(vbss.Model):
    """A normal mean vector, and the rate of a Poisson distribution that is scaled by a point."""

    def __call__(self, y, counts):
        scale = vbss.point("scale", jnp.ones(()), vbss.Precision())
        mean = numpyro.sample("mean", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[4.0, 1.5], [1.5, 1.0]])))
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.MultivariateNormal(mean, jnp.eye(2)).expand([y.shape[0]]).to_event(1), obs=y)
        numpyro.sample("counts", dist.Poisson(scale * rate).expand(counts.shape).to_event(1), obs=counts)


@pytest.fixture(scope="module")
def conjugate():
    data = (jr.normal(jr.key(0), (3, 2)) + 1, jnp.array([3, 1, 4, 2]))
    algorithm = vbss.MCMC(150, 250, num_chains=2)
    infer = partial(vbss.fit, Conjugate(), data, algorithm, start={"scale": jnp.array(2.0)})
    return data, infer, infer(max_steps=400)


def test_moments_are_those_of_the_conjugate_posterior(conjugate):
    (y, counts), _, solution = conjugate
    assert solution.status is vbss.Status.converged
    assert solution.num_steps == 400
    assert solution.elbo.shape == (400,)
    samples = {name: np.asarray(value) for name, value in solution.posterior.samples.items()}
    assert samples["mean"].shape == (2, 250, 2)
    precision = np.linalg.inv([[4.0, 1.5], [1.5, 1.0]])
    covariance = np.linalg.inv(precision + len(y) * np.eye(2))
    mean = covariance @ np.asarray(y).sum(0)
    _check_means(samples["mean"], mean)
    _check_means((samples["mean"] - mean) ** 2, covariance.diagonal())
    _check_means((samples["mean"] - mean).prod(-1), covariance[0, 1])
    shape, rate = 2.0 + float(counts.sum()), 1.0 + 2.0 * counts.size  # the point is held at 2
    _check_means(samples["rate"], shape / rate)
    _check_means((samples["rate"] - shape / rate) ** 2, shape / rate**2)
    assert float(solution.posterior["scale"]) == 2.0


def test_posterior_gives_draws_and_a_summary(conjugate):
    posterior = conjugate[-1].posterior
    assert posterior.names() == {"mean", "rate", "scale"}
    np.testing.assert_allclose(posterior["mean"].mean, posterior.samples["mean"].mean((0, 1)))
    some = posterior.sample(jr.key(1), 500)
    assert some["mean"].shape == (500, 2)
    np.testing.assert_allclose(some["rate"].sum(), posterior.samples["rate"].sum())  # each draw once
    summary = posterior.summary()
    assert summary.sites["mean"]["r_hat"].max() < 1.1
    assert "mean[1]" in str(summary)
    assert f"{summary.num_divergences} divergences" in str(summary)
    with pytest.raises(KeyError, match="'men' is not a site"):
        posterior["men"]


def test_resumed_is_uninterrupted(conjugate, tmp_path, monkeypatch):
    _, infer, whole = conjugate
    monkeypatch.setattr(sys.modules[vbss.fit.__module__], "_SECONDS_BETWEEN_REPORTS", -1.0)

    def interrupt(step, max_steps, bound):
        assert np.isfinite(bound)
        if step > 200:
            raise KeyboardInterrupt

    first = infer(max_steps=400, progress=interrupt, checkpoint=tmp_path / "run")
    assert first.status is vbss.Status.interrupted
    assert first.posterior.samples["rate"].shape == (2, first.num_steps - 150)
    for rest in (
        infer(start=first, max_steps=400 - first.num_steps),
        infer(max_steps=400, checkpoint=tmp_path / "run"),
    ):
        for name, value in whole.posterior.samples.items():
            np.testing.assert_array_equal(rest.posterior.samples[name], value)
    assert rest.status is vbss.Status.converged
    np.testing.assert_array_equal(rest.elbo, whole.elbo)


def test_a_complete_run_goes_on_in_place_of_its_oldest_draws(conjugate):
    _, infer, whole = conjugate
    more = infer(start=whole, max_steps=20).posterior.samples["rate"]
    old = whole.posterior.samples["rate"]
    np.testing.assert_array_equal(more[:, :-20], old[:, 20:])
    assert not np.isin(more[:, -20:], old).all()


def test_a_run_that_ends_in_its_warm_up_says_so(conjugate):
    _, infer, _ = conjugate
    posterior = infer(max_steps=10).posterior
    for ask in (lambda: posterior["mean"], lambda: posterior.sample(jr.key(0), 3), posterior.summary):
        with pytest.raises(ValueError, match="have 0 draws.*max_steps"):
            ask()


class MixtureOfUnknownMeans(vbss.Model):
    log_weights: Array

    def __call__(self, y):
        with numpyro.plate("k", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, vbss.Normal(("k", loc), ("", jnp.ones(())))), obs=y)


def test_mixture_agrees_with_variational_em_and_with_numpyros_enumeration():
    model = MixtureOfUnknownMeans(jnp.log(jnp.array([0.4, 0.6])))
    y = jnp.concatenate([jr.normal(jr.key(0), (8,)) - 2, jr.normal(jr.key(1), (12,)) + 2])
    variational = vbss.fit(model, y, start={"z": jnp.stack([y < 0, y > 0], -1).astype(float)})
    posterior = vbss.fit(model, y, vbss.MCMC(150, 300, num_chains=2), start=variational, max_steps=450).posterior
    q = variational.posterior["loc"]
    assert (jnp.abs(posterior["loc"].mean - q.mean) < 2 * jnp.sqrt(q.variance)).all()
    np.testing.assert_allclose(posterior["z"].probs, variational.posterior["z"].probs, atol=0.1)
    assert posterior.samples["z"].shape == (2, 300, 20)
    _check_means(posterior.samples["z"][..., 8], posterior["z"].probs[8, 1])

    with relaxed_promotion():
        at_mean = numpyro.infer.init_to_value(values={"loc": q.mean})
        kernel = numpyro.infer.NUTS(config_enumerate(model), init_strategy=at_mean)
        reference = numpyro.infer.MCMC(kernel, num_warmup=150, num_samples=600, progress_bar=False)
        reference.run(jr.key(2), y)
    center = np.asarray(q.mean)
    ours, theirs = (np.asarray(s["loc"]) for s in (posterior.samples, reference.get_samples(group_by_chain=True)))
    for a, b in ((ours, theirs), ((ours - center) ** 2, (theirs - center) ** 2)):
        error = sum(x.var((0, 1)) / diagnostics.effective_sample_size(x) for x in (a, b)) ** 0.5
        assert (np.abs(a.mean((0, 1)) - b.mean((0, 1))) < 5 * error).all()


class ChainOfUnknownMeans(vbss.Model):
    log_initial: Array
    log_transition: Array

    def __call__(self, y):
        loc = numpyro.sample("loc", dist.Normal(jnp.array([-1.0, 1.0]), 1.0).to_event(1))
        z = vbss.markov_chain("z", self.log_initial, self.log_transition, y.shape[0])
        with numpyro.plate("t", y.shape[0]):
            numpyro.sample("y", vbss.Gated("t", {"tk": z}, vbss.Normal(("k", loc), ("", jnp.ones(())))), obs=y)


def test_hidden_markov_model_agrees_with_quadrature():
    initial, transition = np.array([0.7, 0.3]), np.array([[0.9, 0.1], [0.2, 0.8]])
    y = np.array([-1.0, -0.6, 0.1, 1.4, 0.9])
    model = ChainOfUnknownMeans(jnp.log(initial), jnp.log(transition))
    posterior = vbss.fit(model, y, vbss.MCMC(150, 300, num_chains=2), max_steps=450).posterior

    grid = np.linspace(-5, 5, 101)
    loc = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)  # (G, G, K)
    prior = np.exp(-(((loc - [-1, 1]) ** 2).sum(-1)) / 2)
    likelihood = np.exp(-((y[:, None, None, None] - loc) ** 2) / 2)  # (T, G, G, K)
    forward, backward = [initial * likelihood[0]], [np.ones_like(loc)]
    for here in likelihood[1:]:
        forward.append(forward[-1] @ transition * here)
    for here in likelihood[:0:-1]:
        backward.insert(0, (backward[0] * here) @ transition.T)
    joint = prior[..., None] * np.stack(forward) * np.stack(backward)  # (T, G, G, K)
    joint = joint / joint[0].sum()
    _check_means(posterior.samples["loc"], (joint[0].sum(-1)[..., None] * loc).sum((0, 1)))
    _check_means(posterior.samples["z"], joint.sum((1, 2))[:, 1])
    np.testing.assert_allclose(posterior["z"].probs, joint.sum((1, 2)), atol=0.03)


class OnlyParameters(vbss.Model):
    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        numpyro.sample("y", dist.Normal(self.loc, 1.0).expand(y.shape).to_event(1), obs=y)


def test_what_cannot_be_drawn_is_refused(conjugate):
    _, infer, _ = conjugate
    with pytest.raises(ValueError, match="no continuous latent"):
        vbss.fit(OnlyParameters(jnp.zeros(())), jnp.ones(3), vbss.MCMC())
    with pytest.raises(ValueError, match="'men' is not a continuous latent"):
        infer(start={"men": jnp.zeros(2)})
    with pytest.raises(ValueError, match=r"'mean' must have shape \(2,\), got \(3,\)"):
        infer(start={"mean": jnp.zeros(3)})
    with pytest.raises(ValueError, match="infinite or nan where the chains begin"):
        infer(start={"rate": jnp.zeros(())})
    with pytest.raises(ValueError, match="num_draws"):
        vbss.MCMC(10, 0)
    with pytest.raises(ValueError, match="target_accept"):
        vbss.MCMC(target_accept=1.0)


def test_other_data_begin_anew():
    class Mean(vbss.Model):
        def __call__(self, y):
            mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
            with numpyro.plate("n", y.shape[0]):
                numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    algorithm = vbss.MCMC(60, 60, num_chains=2)
    first = vbss.fit(Mean(), jnp.full(20, -5.0), algorithm)
    second = vbss.fit(Mean(), jnp.full(20, 5.0), algorithm, start=first)
    assert abs(float(second.posterior["mean"].mean) - 5) < 0.3
    assert vbss.fit(Mean(), jnp.full(20, 5.0), algorithm, max_steps=0).num_steps == 0
