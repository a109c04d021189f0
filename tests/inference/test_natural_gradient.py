"""Natural-gradient steps: EM at step one, unbiased from minibatches, and at the same optimum."""

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from programs import bayesian_mixture, gaussian_mixture, lda_cgmm

import vbss
from vbss import expectation
from vbss.context import relaxed_promotion
from vbss.factorization import initial_posterior
from vbss.inference.minibatch import Weighted, cut, cut_factors, local_blocks
from vbss.models import GaussianMixture


@pytest.fixture(scope="module")
def mixture():
    y = jnp.concatenate([jr.normal(jr.key(0), (150, 1)) - 3, jr.normal(jr.key(1), (150, 1)) * 0.7 + 3])
    return GaussianMixture.init(y, 2, key=jr.key(2)), y


def test_full_steps_are_coordinate_ascent():
    model, data = bayesian_mixture(jr.key(0))
    stepped = vbss.fit(model, data, vbss.NaturalGradient(tolerance=0.0), key=jr.key(1), max_steps=5)
    state = vbss.fit(model, data, vbss.NaturalGradient(), key=jr.key(1), max_steps=0).posterior
    ascent = vbss.fit(model, data, vbss.EM(tolerance=0.0), start=state, max_steps=5)
    np.testing.assert_allclose(stepped.elbo, ascent.elbo, rtol=1e-12)


def test_parameters_of_full_steps_are_those_of_em(mixture):
    model, y = mixture
    stepped = vbss.fit(model, y, vbss.NaturalGradient(tolerance=0.0), max_steps=4)
    begun = vbss.fit(model, y, vbss.NaturalGradient(), max_steps=0).posterior
    ascent = vbss.fit(model, y, vbss.EM(tolerance=0.0), start=begun, max_steps=4)
    for one, other in zip(jax.tree.leaves(stepped.model), jax.tree.leaves(ascent.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_minibatch_bound_is_unbiased():
    model, (y,) = gaussian_mixture(jr.key(0), num=12)
    posterior = initial_posterior(model, (y,), jr.key(1))
    full = expectation.elbo(model, posterior, (y,), expectation.observe(model, posterior, (y,)))
    assert local_blocks(model, posterior, (y,), "n") == ("component",)

    @jax.jit
    def estimate(taken):
        batch, part = cut((y,), taken, 12), cut_factors(posterior, ("component",), taken)
        observations = expectation.observe(model, part, batch)
        joint = expectation.expected_log_joint(Weighted(model, "n", 3.0), part, batch, observations)
        return joint + 3.0 * part.factors["component"].entropy()

    thirds = jnp.arange(12).reshape(3, 4)
    np.testing.assert_allclose(np.mean([estimate(taken) for taken in thirds]), full, rtol=1e-12)


def test_minibatches_reach_the_optimum_of_em(mixture):
    model, y = mixture
    algorithm = vbss.NaturalGradient(30, "n", step_size=0.9, delay=5.0, forgetting=0.8, tolerance=0.0)
    stochastic = vbss.fit(model, y, algorithm, max_steps=400)
    exact = vbss.fit(model, y, vbss.EM())
    np.testing.assert_allclose(stochastic.model.loc, exact.model.loc, atol=0.1)
    np.testing.assert_allclose(jnp.exp(stochastic.model.log_weights), jnp.exp(exact.model.log_weights), atol=0.05)
    after = vbss.fit(stochastic.model, y, vbss.EM(), max_steps=0, start=exact.posterior)
    assert after.elbo[-1] > exact.elbo[-1] - 0.01 * abs(exact.elbo[-1])
    assert stochastic.status is vbss.Status.max_steps
    stopped = vbss.fit(model, y, vbss.NaturalGradient(30, "n", tolerance=3e-2, window=20), max_steps=2000)
    assert stopped.status is vbss.Status.converged and stopped.num_steps < 2000


def test_a_stopped_run_goes_on_as_if_it_had_not(mixture):
    model, y = mixture
    algorithm = vbss.NaturalGradient(30, "n", tolerance=0.0)
    whole = vbss.fit(model, y, algorithm, max_steps=8)
    half = vbss.fit(model, y, algorithm, max_steps=3)
    rest = vbss.fit(model, y, algorithm, start=half, max_steps=5)
    np.testing.assert_array_equal(rest.model.loc, whole.model.loc)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "belong together"),
        ({"batch_size": 0, "plate": "n"}, "batch_size must be a whole number, 1 or more"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": 1.5}, "step_size"),
        ({"delay": 0.0}, "delay"),
        ({"forgetting": 0.3}, "forgetting"),
        ({"local_sweeps": 0}, "local_sweeps"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        vbss.NaturalGradient(**options)


class Scaled(vbss.Model):
    """A parameter with a name that minibatches might take for their own."""

    scale: Annotated[jax.Array, vbss.Precision()]
    size: int | None = eqx.field(static=True, default=None)

    def __call__(self, y):
        with numpyro.plate("n", self.size or y.shape[0]):
            numpyro.sample("y", dist.Normal(0.0, self.scale**-0.5), obs=y)


def test_parameters_may_have_any_name():
    y = jr.normal(jr.key(0), (50,)) * 2
    algorithm = vbss.NaturalGradient(25, "n", forgetting=1.0, tolerance=0.0)
    solution = vbss.fit(Scaled(jnp.ones(())), y, algorithm, max_steps=200)
    np.testing.assert_allclose(1 / solution.model.scale, (y**2).mean(), rtol=0.2)


def test_plates_of_a_fixed_size_and_batches_that_are_too_large_are_named():
    y = jr.normal(jr.key(0), (50,))
    with pytest.raises(ValueError, match="'n' has the size 50 for a minibatch of 1"):
        vbss.fit(Scaled(jnp.ones(()), 50), y, vbss.NaturalGradient(1, "n"))
    with pytest.raises(ValueError, match="'n' has the size 50 for a minibatch of 10"):
        vbss.fit(Scaled(jnp.ones(()), 50), y, vbss.NaturalGradient(10, "n"))
    with pytest.raises(ValueError, match="batch_size must be at most 50"):
        vbss.fit(Scaled(jnp.ones(())), y, vbss.NaturalGradient(51, "n"))


def test_plates_that_cannot_be_cut_are_named(mixture):
    model, y = mixture
    with pytest.raises(ValueError, match="no plate 'm'; it has .'n'."):
        vbss.fit(model, y, vbss.NaturalGradient(10, "m"))
    with relaxed_promotion():
        model, data = lda_cgmm(jr.key(0))
    with pytest.raises(ValueError, match="the 3 elements of plate 'frames' on its first axis"):
        vbss.fit(model, data, vbss.NaturalGradient(2, "frames"))
