"""Factors of chains carry what their recursions find, and so must never carry that of other natural parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.factors import StatisticsFactor, ValueFactor
from vbss.families import Categorical, DiscreteChain, Gaussian, GaussMarkov


def chain(seed):
    keys = jr.split(jr.key(seed))
    return {"onehot": jr.normal(keys[0], (2, 5, 3)), "pair": jr.normal(keys[1], (2, 4, 3, 3))}


def path(seed):
    value = jr.normal(jr.key(seed), (2, 5, 2))
    return GaussMarkov().perturbed(GaussMarkov().initial(value), jr.key(seed))


FACTORS = {
    "states": (StatisticsFactor, DiscreteChain(), "z", chain),
    "path": (ValueFactor, GaussMarkov(), ("x",), path),
}


def weights(factor, seed):
    return jax.tree.map(lambda v: jr.normal(jr.key(seed), v.shape, float), factor.representative())


@eqx.filter_jit
def observed(factor, weight):
    """What the program and the bound see of a factor."""

    def objective(values):
        return sum((weight[name] * v + v**2 / 2).sum() for name, v in values.items() if v.ndim > 2)

    return factor.representative(), factor.integrate(objective), factor.entropy()


@eqx.filter_jit
def updated(factor, weight):
    return factor.update(lambda values: sum((weight[n] * v - v**2 / 2).sum() for n, v in values.items() if v.ndim > 2))


def assert_same(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), first, second)


@pytest.mark.parametrize(("cls", "family", "site", "member"), FACTORS.values(), ids=FACTORS)
def test_what_is_carried_belongs_to_the_natural_parameters(cls, family, site, member):
    first, second = cls(member(0), family, site), cls(member(1), family, site)
    weight = weights(first, 2)
    fresh = observed(second, weight)
    assert_same(observed(first.with_natural(second.canonical()), weight), fresh)
    assert not np.allclose(observed(first, weight)[1], fresh[1])
    assert_same(second.entropy(), family.entropy(second.natural).sum())
    moved = updated(first, weight)
    assert_same(moved.smoothed, family.smoothed(moved.natural))
    moved = eqx.filter_jit(lambda factor: factor.perturbed(jr.key(3)))(first)
    assert_same(moved.smoothed, family.smoothed(moved.natural))


@pytest.mark.parametrize(("cls", "family", "site", "member"), FACTORS.values(), ids=FACTORS)
def test_factors_of_chains_under_vmap(cls, family, site, member):
    natural = jax.tree.map(lambda a, b: jnp.stack([a, b]), member(0), member(1))
    batch = eqx.filter_vmap(lambda natural: cls(natural, family, site))(natural)
    first = jax.tree.map(lambda a: a[0], batch)
    assert_same(first.smoothed, family.smoothed(member(0)))


def test_other_factors_carry_nothing():
    assert StatisticsFactor({"onehot": jnp.zeros((4, 3))}, Categorical(), "z").smoothed is None
    natural = {"linear": jnp.zeros((4, 2)), "precision": jnp.broadcast_to(jnp.eye(2), (4, 2, 2))}
    assert ValueFactor(natural, Gaussian(1), ("x",)).smoothed is None
