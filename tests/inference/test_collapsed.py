"""Discrete latents summed out: the density is the brute-force sum, with its derivatives."""

from itertools import product
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import programs
import pytest
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array

import vbss
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexNormal
from vbss.inference.collapsed import collapse


class Mixture(vbss.Model):
    """A mixture of normals on the line with a prior on the means."""

    log_weights: Annotated[Array, vbss.Simplex()]
    precision: Annotated[Array, vbss.Precision()]

    def __call__(self, y):
        with numpyro.plate("k", self.log_weights.shape[0]):
            loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            density = vbss.Normal(("k", loc), ("", self.precision))
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, density), obs=y)


class Chain(vbss.Model):
    """A hidden Markov model with a prior on its precision."""

    log_initial: Array
    log_transition: Array
    loc: Annotated[Array, vbss.Linear()]

    def __call__(self, y):
        precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
        z = vbss.markov_chain("z", self.log_initial, self.log_transition, y.shape[0])
        with numpyro.plate("t", y.shape[0]):
            density = vbss.Normal(("k", self.loc), ("", precision))
            numpyro.sample("y", vbss.Gated("t", {"tk": z}, density), obs=y)


def _normal(x, loc, precision):
    return (jnp.log(precision) - jnp.log(2 * jnp.pi) - precision * (x - loc) ** 2) / 2


def _mixture(key):
    model = Mixture(jnp.log(jnp.array([0.3, 0.7])), jnp.array(0.8))

    def brute_force(model, values, y):
        loc = values["loc"]
        joint = model.log_weights[None] + _normal(y[:, None], loc[None], model.precision)
        return logsumexp(joint, -1).sum() + _normal(loc, 0.0, 1 / 9).sum()

    return model, (jr.normal(key, (9,)) * 2,), brute_force


def _chain(key):
    log_probs = jax.nn.log_softmax(jr.normal(key, (3, 2)), -1)
    model = Chain(log_probs[0], log_probs[1:], jnp.array([-1.0, 1.5]))
    paths = np.array(list(product(range(2), repeat=5)))

    def brute_force(model, values, y):
        precision = values["precision"]
        emission = _normal(y[:, None], model.loc[None], precision)
        of_path = model.log_initial[paths[:, 0]] + emission[np.arange(5), paths].sum(-1)
        of_path = of_path + model.log_transition[paths[:, :-1], paths[:, 1:]].sum(-1)
        return logsumexp(of_path) + jnp.log(precision) - precision

    return model, (jr.normal(key, (5,)) * 2,), brute_force


def _student(key):
    model, (y,) = programs.student_mixture(key, num=7)

    def brute_force(model, values, y):
        u, shape = values["u"], model.shape
        prior = shape * jnp.log(shape) - gammaln(shape) + (shape - 1) * jnp.log(u) - shape * u
        precision = u[..., None, None] * model.precision[None]
        apart = y[:, None] - model.loc[None]
        squares = jnp.einsum("nki,nkij,nkj->nk", apart, precision, apart)
        log_likelihood = (jnp.linalg.slogdet(precision)[1] - 2 * jnp.log(2 * jnp.pi) - squares) / 2
        return logsumexp(model.log_weights[None] + prior + log_likelihood, -1).sum()

    return model, (y,), brute_force


@pytest.mark.parametrize("problem", [_mixture, _chain, _student])
def test_the_density_is_the_sum_over_all_states(problem):
    model, data, brute_force = problem(jr.key(0))
    collapsed = collapse(model, data, jr.key(1))
    values, observations = collapsed.initial(jr.key(2)), collapsed.observe()

    def log_density(model, values):
        return collapsed.with_model(model).log_density(values, observations)

    def reference(model, values):
        return brute_force(model, values, *data)

    @eqx.filter_jit
    def derivatives(function, model, values):
        learnt, fixed = eqx.partition(model, eqx.is_array)
        of_values = jax.value_and_grad(lambda v: function(model, v))(values)
        of_model = jax.grad(lambda m: function(eqx.combine(m, fixed), values))(learnt)
        hessian = jax.hessian(lambda v: function(model, v))(values)
        return of_values, of_model, hessian

    own, expected = derivatives(log_density, model, values), derivatives(reference, model, values)
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_given_values_the_states_have_their_conditional_probabilities():
    model, (y,), _ = _mixture(jr.key(0))
    collapsed = collapse(model, (y,), jr.key(1))
    values, observations = {"loc": jnp.array([-1.0, 2.0])}, collapsed.observe()
    joint = model.log_weights[None] + _normal(y[:, None], values["loc"][None], model.precision)

    @eqx.filter_jit
    def infer(keys):
        return jax.vmap(lambda key: collapsed.discrete(values, observations, key))(keys)

    states, probabilities = infer(jr.split(jr.key(3), 2000))
    draws, probabilities = states["z"], probabilities["z"][0]
    np.testing.assert_allclose(probabilities, jax.nn.softmax(joint, -1), rtol=1e-10)
    error = jnp.sqrt(probabilities[:, 1] * probabilities[:, 0] / 2000)
    assert (jnp.abs(draws.astype(float).mean(0) - probabilities[:, 1]) < 5 * error + 1e-3).all()


def test_a_program_without_continuous_latents_has_its_likelihood():
    model, data = programs.gaussian_mixture(jr.key(0), num=6)
    collapsed = collapse(model, data, jr.key(1))
    with relaxed_promotion():
        component = dist.MultivariateNormal(model.loc, precision_matrix=model.precision)
        expected = logsumexp(model.log_weights + component.log_prob(data[0][:, None]), -1).sum()
    own = eqx.filter_jit(collapsed.log_density)({}, collapsed.observe())
    np.testing.assert_allclose(own, expected, rtol=1e-9)


class Complex(vbss.Model):
    """Latents on a complex, a positive and an interval support, the last depending on another."""

    top: Array

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("x", ComplexNormal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("height", dist.Uniform(0.0, scale * self.top))
        numpyro.sample("y", dist.Normal(0.0, scale).expand(y.shape).to_event(1), obs=y)


def test_coordinates_are_unconstrained_and_invertible():
    collapsed = collapse(Complex(jnp.array(2.0)), (jnp.ones(3),), jr.key(0))
    values = collapsed.initial(jr.key(1))
    assert values["x"].dtype == complex
    coordinates = collapsed.unconstrain(values)
    assert all(not jnp.iscomplexobj(c) for c in coordinates.values()) and coordinates["x"].shape == (3, 2)
    back, log_determinant = collapsed.constrain(coordinates)
    for name, value in values.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-10)

    def flat(c):
        placed = collapsed.constrain({"scale": c[0], "height": c[1], "x": coordinates["x"]})[0]
        return jnp.stack([placed["scale"], placed["height"]])

    jacobian = jax.jacobian(flat)(jnp.stack([coordinates["scale"], coordinates["height"]]))
    np.testing.assert_allclose(log_determinant, jnp.linalg.slogdet(jacobian)[1], rtol=1e-10)


class Plain(vbss.Model):
    def __call__(self, y):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
        numpyro.sample("y", dist.Normal(z.astype(float), 1.0).expand(y.shape).to_event(1), obs=y)


class Curved(vbss.Model):
    """The density is not linear in the state: it reads the one-hot through a normal's mean."""

    def __call__(self, y):
        z = vbss.indicator("z", jnp.log(jnp.ones(2) / 2))
        numpyro.sample("y", dist.Normal(z[..., 0], 1.0).expand(y.shape).to_event(1), obs=y)


def test_what_cannot_be_summed_out_is_refused():
    with pytest.raises(ValueError, match="'w' and 'z' interact"):
        collapse(*programs.vessl(jr.key(0)), jr.key(1))
    with pytest.raises(ValueError, match="'z' is Categorical"):
        collapse(Plain(), (jnp.ones(3),), jr.key(1))
    with pytest.raises(vbss.ProgramError, match="'z'"):
        collapse(Curved(), (jnp.ones(3),), jr.key(1))


class Coupled(vbss.Model):
    """Two or three indicators that meet in one density, where the weight is not zero."""

    weight: Annotated[Array, vbss.Numerical()]
    num: int = eqx.field(static=True)

    def __call__(self, y):
        states = [vbss.indicator(name, jnp.log(jnp.array([0.5, 0.5]))) for name in "abc"[: self.num]]
        sign = jnp.ones(())
        for state in states:
            sign = sign * (state[..., 0] - state[..., 1])
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("meeting", self.weight * sign)
        numpyro.sample("y", dist.Normal(x, 1.0).expand(y.shape).to_event(1), obs=y)


@pytest.mark.parametrize("num", [2, 3])
def test_latents_that_meet_only_elsewhere_are_refused(num):
    with pytest.raises(ValueError, match="interact"):
        collapse(Coupled(jnp.zeros(()), num), (jnp.ones(3),), jr.key(0))
