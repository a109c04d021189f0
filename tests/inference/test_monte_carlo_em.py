"""Monte Carlo EM against exact EM, with and without continuous latents; resuming; the rules it ends by; errors."""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import vbss
from vbss.inference.sampled_step import coefficients_of, draws_at, improved
from vbss.inference.stopping import Completed, Plateau, Steady
from vbss.inference.unconstrained import unconstrained


class Mixture(vbss.Model):
    """Two normals of precision 1."""

    log_weights: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, vbss.Normal(("k", self.loc), ("", jnp.ones(())))), obs=y)


def test_without_continuous_latents_it_is_exact_em():
    model, y = Mixture(jnp.log(jnp.array([0.3, 0.7])), jnp.array([-0.5, 0.5])), jr.normal(jr.key(0), (20,)) * 2
    em = vbss.fit(model, y, vbss.EM(tolerance=0.0), max_steps=8)
    ours = vbss.fit(model, y, vbss.MonteCarloEM(tolerance=0.0), max_steps=8)
    for a, b in zip(jax.tree.leaves(ours.model), jax.tree.leaves(em.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert np.diff(ours.elbo).min() > 0
    log_weights, loc = np.asarray(ours.model.log_weights), np.asarray(ours.model.loc)
    joint = np.exp(log_weights - (np.asarray(y)[:, None] - loc) ** 2 / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(ours.elbo[-1], np.log(joint.sum(-1)).sum(), rtol=1e-12)
    np.testing.assert_allclose(ours.posterior["z"].probs, joint / joint.sum(-1, keepdims=True), rtol=1e-9)
    assert isinstance(ours.posterior, vbss.Posterior)


class LinearFactor(vbss.Model):
    """y_nd = loading_d x_n + noise of one precision, a point."""

    loading: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        precision = vbss.point("precision", jnp.array(1.0), vbss.Precision())
        with numpyro.plate("n", y.shape[0]):
            x = numpyro.sample("x", dist.Normal(0.0, 1.0))
            scale = precision**-0.5
            numpyro.sample("y", dist.Normal(x[:, None] * self.loading, scale).to_event(1), obs=y)


@pytest.fixture(scope="module")
def factor():
    x = jr.normal(jr.key(1), (30, 1))
    y = x * jnp.array([[1.0, -0.5, 2.0]]) + 0.5 * jr.normal(jr.key(2), (30, 3))
    model = LinearFactor(jnp.array([0.5, 0.5, 0.5]))
    return model, y, partial(vbss.fit, model, y, vbss.MonteCarloEM(tolerance=0.0))


def test_converges_to_the_parameters_of_maximum_likelihood(factor):
    # In closed form: Tipping and Bishop, "Probabilistic principal component analysis" (1999).
    _, y, infer = factor
    observations = np.asarray(y)
    variances, directions = np.linalg.eigh(observations.T @ observations / len(observations))
    noise = variances[:-1].mean()
    loading = np.sqrt(variances[-1] - noise) * directions[:, -1] * np.sign(directions[0, -1])
    ours = infer(max_steps=500)
    np.testing.assert_allclose(ours.model.loading, loading, atol=0.06)
    np.testing.assert_allclose(ours.posterior["precision"], 1 / noise, rtol=0.05)
    variance = noise / (noise + loading @ loading)
    error = np.asarray(ours.posterior["x"].mean) - observations @ loading * variance / noise
    assert ours.posterior.samples["x"].shape == (10, 1, 30)
    assert (np.abs(error) < 5 * np.sqrt(variance / 10)).all()
    assert ours.elbo.shape == (501,)


def _m_step(model, y, draws):
    target = unconstrained(model, (y,), {}, jr.key(0), probes=False)
    found = draws_at(target, draws)
    zeros = jax.tree.map(jnp.zeros_like, coefficients_of(model, target, (y,), ("precision", "loading"), found))
    return improved(model, target, (y,), ("precision", "loading"), found, zeros, jnp.ones(()))[:2]


def test_the_m_step_maximises_the_mean_over_draws(factor):
    model, y, _ = factor
    draws = jr.normal(jr.key(3), (4, len(y)))
    moved, points = jax.jit(_m_step)(model, y, draws)
    error = np.asarray(y) - np.asarray(draws)[..., None] * np.asarray(model.loading)
    np.testing.assert_allclose(points["precision"], 1 / (error**2).mean(), rtol=1e-9)
    np.testing.assert_allclose(moved.loading, np.einsum("rn,nd->d", draws, y) / (draws**2).sum(), rtol=1e-9)


def test_the_memory_of_an_m_step_does_not_grow_with_draws():
    y = jnp.ones((20, 500))
    model = LinearFactor(jnp.ones(500))

    def size(num_draws):
        compiled = jax.jit(_m_step).lower(model, y, jnp.ones((num_draws, len(y)))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert size(50) < 1.5 * size(5)


def test_resumed_is_uninterrupted(factor, tmp_path):
    _, _, infer = factor
    whole = infer(max_steps=30)

    def interrupt(step, max_steps, bound):
        raise KeyboardInterrupt

    first = infer(max_steps=30, progress=interrupt, checkpoint=tmp_path / "run")
    assert first.status is vbss.Status.interrupted
    for rest in (infer(start=first, max_steps=30 - first.num_steps), infer(max_steps=30, checkpoint=tmp_path / "run")):
        np.testing.assert_array_equal(rest.model.loading, whole.model.loading)
        np.testing.assert_array_equal(rest.posterior.samples["x"], whole.posterior.samples["x"])
    np.testing.assert_array_equal(rest.elbo, whole.elbo)


class LatentMixture(vbss.Model):
    """x_n is drawn from a mixture and observed with noise."""

    log_weights: Annotated[Array, vbss.Simplex()]
    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            x = numpyro.sample("x", vbss.Given(z, dist.Normal(self.loc, 1.0)))
            density = vbss.Normal(("nk", jnp.broadcast_to(x, z.shape)), ("", jnp.ones(())))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


def test_discrete_latents_are_summed_out():
    y = jnp.concatenate([jr.normal(jr.key(0), (8,)) - 3, jr.normal(jr.key(1), (12,)) + 3])
    model = LatentMixture(jnp.log(jnp.array([0.5, 0.5])), jnp.array([-1.0, 1.0]))
    ours = vbss.fit(model, y, vbss.MonteCarloEM(frozen=("log_weights",)), max_steps=1000)
    assert ours.status in (vbss.Status.converged, vbss.Status.max_steps)
    np.testing.assert_array_equal(ours.model.log_weights, model.log_weights)
    observations, loc = np.asarray(y), np.array([-1.0, 1.0])
    for _ in range(100):  # exact EM with x summed out too
        joint = np.exp(-((observations[:, None] - loc) ** 2) / 4)
        probs = joint / joint.sum(-1, keepdims=True)
        loc = probs.T @ observations / probs.sum(0)
    np.testing.assert_allclose(ours.model.loc, loc, atol=0.1)
    np.testing.assert_allclose(ours.posterior["z"].probs, probs, atol=0.1)


def test_ends_when_the_log_density_is_steady_though_it_fell():
    rng = np.random.default_rng(0)
    trace = jnp.asarray(10 * np.exp(-np.arange(300) / 20) + 0.1 * rng.standard_normal(300))

    def ends(rule):
        memory = rule.begin(trace.dtype)
        judge = jax.jit(lambda bound, memory: rule.judge(bound, memory, 1))
        for step, bound in enumerate(trace):
            status, memory = judge(bound, memory)
            if int(status) != vbss.Status.running.value:
                assert int(status) == vbss.Status.converged.value
                return step + 1
        return None

    assert ends(Plateau(0.05, 20)) == 40  # a fall is an end to it
    assert ends(Steady(0.05, 20)) is None and ends(Steady(1.0, 20)) == 160
    assert ends(Completed(7)) == 7


def test_bad_settings_are_refused(factor):
    _, _, infer = factor
    for settings, message in [
        ({"num_chains": 0}, "num_chains"),
        ({"step_size": 0.0}, "step_size"),
        ({"delay": 0.0}, "delay"),
        ({"forgetting": 0.3}, "forgetting"),
    ]:
        with pytest.raises(ValueError, match=message):
            vbss.MonteCarloEM(**settings)
    with pytest.raises(ValueError, match=r"point 'precision' must have shape \(\), got \(2,\)"):
        infer(start={"precision": jnp.ones(2)})
    with pytest.raises(ValueError, match="'lodaing' is not a parameter"):
        vbss.fit(*factor[:2], vbss.MonteCarloEM(frozen=("lodaing",)))
