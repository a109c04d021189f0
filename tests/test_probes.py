"""Programs outside the rules are refused before the first step, in either precision; those inside are not."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import jax.random as jr
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from programs import MODELS

import vbss
from vbss.context import relaxed_promotion
from vbss.factorization import initial_posterior
from vbss.probes import is_proven, probe


class MeanOfStates(vbss.Model):
    """The means are mixed inside the density: E_q[log p] is quadratic in the one-hots."""

    loc: Array

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", jnp.full_like(self.loc, -jnp.log(2)))
            numpyro.sample("y", dist.Normal(z @ self.loc, jnp.ones_like(y[0])), obs=y)


class CountsOfStates(vbss.Model):
    loc: Array

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", jnp.full_like(self.loc, -jnp.log(2)))
            numpyro.sample("y", dist.Poisson(jnp.exp(z @ self.loc)), obs=jnp.round(jnp.abs(y)))


class Potts(vbss.Model):
    """Neighbours prefer equal states: affine in each, but not with all updated at once."""

    loc: Array

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", jnp.full_like(self.loc, -jnp.log(2)))
            density = vbss.Normal(("k", self.loc), ("k", jnp.ones_like(self.loc)))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)
        numpyro.factor("neighbours", (z[..., 1:, :] * z[..., :-1, :]).sum((-2, -1)))


class LogisticRegression(vbss.Model):
    def __call__(self, y):
        size = y.shape[0]
        w = numpyro.sample("w", dist.MultivariateNormal(jnp.zeros_like(y), jnp.eye(size, dtype=y.dtype)))
        with numpyro.plate("n", size):
            numpyro.sample("y", dist.Bernoulli(logits=jnp.outer(y, y + 1) @ w), obs=y > 0)


class RandomWalk(vbss.Model):
    """A chain written as a plate: its elements are not independent."""

    def __call__(self, y):
        with numpyro.plate("t", y.shape[0]):
            x = numpyro.sample("x", dist.Normal(jnp.zeros_like(y), jnp.ones_like(y[0])))
            numpyro.sample("y", dist.Normal(x, jnp.ones_like(y[0])), obs=y)
        numpyro.factor("walk", -(jnp.diff(x) ** 2).sum(-1))


class LogNormalScale(vbss.Model):
    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            u = numpyro.sample("u", dist.Gamma(jnp.full_like(y, 2), jnp.ones_like(y[0])))
            numpyro.factor("odd", dist.LogNormal(jnp.zeros_like(y), jnp.ones_like(y[0])).log_prob(u))
            numpyro.sample("y", dist.Normal(jnp.zeros_like(y), u**-0.5), obs=y)


class CurvedMean(vbss.Model):
    """A parameter whose mean is no linear function of it."""

    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.sin(self.loc[0]), jnp.ones_like(y[0])), obs=y)


class SummedMeans(vbss.Model):
    """Entries of a parameter that are declared to be on their own, and are not."""

    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(self.loc.sum(-1), jnp.ones_like(y[0])), obs=y)


class ScaleNotPrecision(vbss.Model):
    loc: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.zeros_like(y), 1 + self.loc[0] ** 2), obs=y)


class ArgmaxOfStates(vbss.Model):
    """The one-hot is used as an index: no gradient tells."""

    loc: Array

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", jnp.full_like(self.loc, -jnp.log(2)))
            numpyro.sample("y", dist.Normal(self.loc[z.argmax(-1)], jnp.ones_like(y[0])), obs=y)


class Step(vbss.Model):
    def __call__(self, y):
        x = numpyro.sample("x", dist.Normal(jnp.zeros_like(y[0]), jnp.ones_like(y[0])))
        numpyro.factor("step", jnp.where(x > 0, jnp.zeros_like(x), jnp.full_like(x, -5.0)))
        numpyro.sample("y", dist.Normal(x, jnp.ones_like(y[0])).expand(y.shape).to_event(1), obs=y)


class NoiseFloor(vbss.Model):
    """A variance that is not proportional to the unknown."""

    loc: Annotated[Array, vbss.Additive()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.zeros_like(y), (1 + self.loc.sum()) ** 0.5), obs=y)


class Powers(vbss.Model):
    """Powers that add up to the variance."""

    power: Annotated[Array, vbss.Additive()]

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", dist.Normal(jnp.zeros_like(y), self.power.sum() ** 0.5), obs=y)


WRONG = {
    NoiseFloor: ("'loc'", "-log|S| - tr(S^-1 X) with a covariance S proportional to 'loc'", "disagree"),
    ArgmaxOfStates: ("'z'", "linear in the states of 'z'", "disagree"),
    Step: ("'x'", "quadratic in 'x'", "disagree"),
    MeanOfStates: ("'z'", "linear in the states of 'z'", "disagree"),
    CountsOfStates: ("'z'", "linear in the states of 'z'", "disagree"),
    Potts: ("'z'", "linear in the states of 'z'", "depend on each other"),
    LogisticRegression: ("'w'", "quadratic in 'w'", "disagree"),
    RandomWalk: ("'x'", "quadratic in 'x'", "depend on each other"),
    LogNormalScale: ("'u'", "linear in the value and the logarithm of 'u'", "disagree"),
    CurvedMean: ("'loc'", "quadratic in 'loc'", "disagree"),
    SummedMeans: ("'loc'", "quadratic in 'loc'", "depend on each other"),
    ScaleNotPrecision: ("'loc'", "linear in the value and the log-determinant of 'loc'", "disagree"),
}


def _problem(wrong, dtype):
    y = jr.normal(jr.key(1), (6,), dtype)
    return wrong(jnp.array([0.5, 1.5], dtype)) if dataclasses.fields(wrong) else wrong(), y


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_program_outside_the_rules_is_refused_before_the_first_step(wrong, dtype):
    model, y = _problem(wrong, dtype)
    with pytest.raises(vbss.ProgramError) as error:
        vbss.fit(model, y, key=jr.key(4), max_steps=1)
    site, claim, reason = WRONG[wrong]
    message = str(error.value)
    assert site in message and f"is not {claim}" in message and reason in message
    assert "vbss.SVI" in message and message.startswith(wrong.__name__)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_powers_that_add_up_are_accepted_and_found(dtype):
    model, y = _problem(Powers, dtype)
    solution = vbss.fit(model, y, key=jr.key(4), max_steps=20)
    assert float(solution.model.power.sum()) == pytest.approx(float((y**2).mean()), rel=1e-3)


def test_the_probes_are_left_out_of_the_packages_models_and_where_told():
    model, data = MODELS["hidden markov"](jr.key(0))
    assert not is_proven(model)
    model, data = MODELS["factor analysis"](jr.key(0))
    assert is_proven(model)

    class Own(type(model)):
        pass

    assert not is_proven(Own(model.loading, model.offset, model.observation_precision))
    model, y = _problem(MeanOfStates, jnp.float64)
    assert vbss.fit(model, y, vbss.EM(probes=False), max_steps=1).num_steps == 1


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, jnp.float32) for name in MODELS), ("vessl", jnp.float64), ("lda-cgmm", jnp.float64)]
)
def test_programs_within_the_rules_pass_at_several_random_points(name, dtype):
    with relaxed_promotion():
        model, data = MODELS[name](jr.key(3))
    complex_dtype = {jnp.float32: jnp.complex64, jnp.float64: jnp.complex128}[dtype]

    def cast(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf.astype(complex_dtype if jnp.iscomplexobj(leaf) else dtype)

    model, data = jax.tree.map(cast, (model, data))
    posterior = initial_posterior(model, data, jr.key(0))
    blocks = (*posterior.order, *model.parameter_kinds())
    for seed in range(5):
        probe(model, posterior, data, jr.key(seed), blocks)
