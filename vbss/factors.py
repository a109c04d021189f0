"""Factors of the posterior q: each integrates a function exactly, updates itself from one, and knows its entropy.

A factor covers one site, or an indicator together with a latent given it. Its value for the program is a dictionary
{site: array}, with the expectations of statistics under the names of their deterministic sites.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array

from vbss.families import Categorical, Natural, StatisticsFamily, ValueFamily
from vbss.hermitian import inverse_and_log_determinant, pack, unpack

Values = dict[str, Array]
ProgramObjective = Callable[[Values], Array]


class Factor(eqx.Module):
    """One independent part of q."""

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """The latent sites that the factor covers."""

    @abstractmethod
    def integrate(self, objective: ProgramObjective) -> Array:
        """The exact expectation of the objective under the factor."""

    @abstractmethod
    def representative(self) -> Values:
        """Some values of the factor's sites, in the shapes that the program reads."""

    def integrate_every_state(self, objective: ProgramObjective) -> Array:
        """The expectation with every state of the factor's indicator held open (its one-hot all ones)."""
        raise ValueError(f"given: {self.sites[0]!r} is not an indicator")

    @abstractmethod
    def update(self, objective: ProgramObjective) -> "Factor":
        """The factor's optimum, exp(objective) normalised, read from derivatives."""

    @abstractmethod
    def with_natural(self, natural: Natural) -> "Factor":
        """The factor at other natural parameters (`logits` among them where it has an indicator of its own)."""

    @abstractmethod
    def canonical(self) -> Natural:
        """Natural parameters that `with_natural` takes back; equal for equal distributions, but for a chain's gauge."""

    @abstractmethod
    def entropy(self) -> Array: ...

    @abstractmethod
    def distributions(self) -> dict[str, dist.Distribution]:
        """The marginal of each site as a NumPyro distribution."""


def _placeholder(site: str, shape: tuple[int, ...]) -> Values:
    # The categorical site beneath a one-hot needs some value; nothing reads it.
    return {site: jnp.zeros(shape, jnp.int32)}


class StatisticsFactor(Factor):
    """A site read through its sufficient statistics (indicators, Markov chains)."""

    natural: Natural
    family: StatisticsFamily
    site: str = eqx.field(static=True)

    @property
    def sites(self):
        return (self.site,)

    def values(self, means: Natural) -> Values:
        shape = list(means["onehot"].shape)
        shape.pop(self.family.axis)
        placeholder = _placeholder(self.site, tuple(shape))
        return placeholder | {f"{self.site}/{key}": mean for key, mean in means.items()}

    def integrate(self, objective):
        return objective(self.representative())

    def representative(self):
        return self.values(self.family.means(self.natural))

    def integrate_every_state(self, objective):
        return objective(self.values(jax.tree.map(jnp.ones_like, self.natural)))

    def update(self, objective):
        means = self.family.means(self.natural)
        return self.with_natural(jax.grad(lambda m: objective(self.values(m)))(means))

    def canonical(self):
        if isinstance(self.family, Categorical):
            return {"onehot": jax.nn.log_softmax(self.natural["onehot"], self.family.axis)}
        return self.natural

    def with_natural(self, natural):
        return StatisticsFactor(natural, self.family, self.site)

    def entropy(self):
        return self.family.entropy(self.natural)

    def distributions(self):
        return {self.site: self.family.distribution(self.natural)}


class ValueFactor(Factor):
    """A site read through its value (Gaussian, gamma), independent along its plates."""

    natural: Natural
    family: ValueFamily
    site: str = eqx.field(static=True)

    @property
    def sites(self):
        return (self.site,)

    def integrate(self, objective):
        return jax.vmap(lambda value: objective({self.site: value}))(self.family.points(self.natural)).mean()

    def representative(self):
        return {self.site: self.family.points(self.natural)[0]}

    def update(self, objective):
        return self.with_natural(self.family.read(lambda value: objective({self.site: value}), self.natural))

    def canonical(self):
        return self.natural

    def with_natural(self, natural):
        return ValueFactor(natural, self.family, self.site)

    def entropy(self):
        return self.family.entropy(self.natural).sum()

    def distributions(self):
        return {self.site: self.family.distribution(self.natural)}


class GivenFactor(Factor):
    """An indicator z and a latent x given it, jointly: q(z) q(x | z)."""

    logits: Array
    natural: Natural
    family: ValueFamily
    gate: str = eqx.field(static=True)
    site: str = eqx.field(static=True)

    @property
    def sites(self):
        return (self.gate, self.site)

    def _values(self, probs: Array, value: Array) -> Values:
        return _placeholder(self.gate, probs.shape[:-1]) | {f"{self.gate}/onehot": probs, self.site: value}

    def integrate(self, objective):
        return self._integrate(jax.nn.softmax(self.logits, -1), objective)

    def integrate_every_state(self, objective):
        return self._integrate(jnp.ones_like(self.logits), objective)

    def _integrate(self, probs: Array, objective: ProgramObjective) -> Array:
        points = self.family.points(self.natural)
        return jax.vmap(lambda value: objective(self._values(probs, value)))(points).mean()

    def representative(self):
        return self._values(jax.nn.softmax(self.logits, -1), self.family.points(self.natural)[0])

    def update(self, objective):
        # The objective is affine in the gate, so with every state held open it is a sum over the states of what x sees
        # in each: no division by a probability that may vanish.
        every_state = jnp.ones_like(self.logits)
        natural = self.family.read(lambda value: objective(self._values(every_state, value)), self.natural)
        value, product = self.family.reference(natural)
        slope = jax.grad(lambda probs: objective(self._values(probs, value)))(jax.nn.softmax(self.logits, -1))
        return GivenFactor(
            slope - product + self.family.log_partition(natural), natural, self.family, self.gate, self.site
        )

    def canonical(self):
        return {"logits": jax.nn.log_softmax(self.logits, -1), **self.natural}

    def with_natural(self, natural):
        rest = {key: value for key, value in natural.items() if key != "logits"}
        return GivenFactor(natural["logits"], rest, self.family, self.gate, self.site)

    def entropy(self):
        conditional = jax.nn.softmax(self.logits, -1) * self.family.entropy(self.natural)
        return Categorical().entropy({"onehot": self.logits}) + conditional.sum()

    def distributions(self):
        mixing = Categorical().distribution({"onehot": self.logits})
        components = self.family.distribution(self.natural)
        return {self.gate: mixing, self.site: dist.MixtureSameFamily(mixing, components)}


class CovariancePoint(Factor):
    """A covariance with an inverse-Wishart prior, kept at the mode of its complete conditional (MAP).

    It carries the statistics that the program reads beside the packed matrix: one factorisation an update.
    """

    packed: Array
    precision: Array
    log_determinant: Array
    site: str = eqx.field(static=True)

    @classmethod
    def at(cls, packed: Array, site: str) -> "CovariancePoint":
        """The point at a packed matrix."""
        return cls(packed, *inverse_and_log_determinant(packed), site)

    @property
    def sites(self):
        return (self.site,)

    def _values(self, statistics: Natural) -> Values:
        # The matrix itself is read by nothing: the site's density is linear in its statistics.
        placeholder = {self.site: jax.lax.stop_gradient(unpack(self.packed))}
        return placeholder | {f"{self.site}/{key}": value for key, value in statistics.items()}

    def integrate(self, objective):
        return objective(self.representative())

    def representative(self):
        return self._values({"precision": self.precision, "log_determinant": self.log_determinant})

    def update(self, objective):
        statistics = {"precision": self.precision, "log_determinant": self.log_determinant}
        return self.with_natural(jax.grad(lambda s: objective(self._values(s)))(statistics))

    def canonical(self):
        return {"precision": -self.packed, "log_determinant": -jnp.ones_like(self.log_determinant)}

    def with_natural(self, natural):
        # The mode of n log|P| + <A, P> over P = H^-1, with n = -d/d log|H|.
        return CovariancePoint.at(natural["precision"] / natural["log_determinant"][..., None], self.site)

    def entropy(self):
        return jnp.zeros((), self.packed.dtype)

    def distributions(self):
        return {self.site: dist.Delta(unpack(self.packed), event_dim=2)}


def started(factor: Factor, value: Array) -> Factor:
    """The factor placed at a given start: probabilities for an indicator, a matrix for a covariance.

    Raises:
        ValueError: if the factor cannot be started from an array, the shape is another, or it holds no probabilities.
    """
    if isinstance(factor, StatisticsFactor) and isinstance(factor.family, Categorical):
        key, axis, expected = "onehot", factor.family.axis, factor.natural["onehot"]
    elif isinstance(factor, GivenFactor):
        key, axis, expected = "logits", -1, factor.logits
    elif isinstance(factor, CovariancePoint):
        _check_shape(factor.site, value, unpack(factor.packed).shape)
        return CovariancePoint.at(pack(value), factor.site)
    else:
        raise ValueError(f"start: site {factor.sites[-1]!r} cannot be started from an array")
    _check_shape(factor.sites[0], value, jnp.moveaxis(expected, axis, -1).shape)
    if not isinstance(value, Tracer) and not bool(_are_probabilities(value)):
        raise ValueError(
            f"start: site {factor.sites[0]!r} must hold probabilities of the states along its last axis: none negative "
            "or nan, not all zero"
        )
    logits = _log_probabilities(jnp.asarray(value, expected.dtype), axis)
    return factor.with_natural({**factor.canonical(), key: logits})


# Compiled, as are all that run once outside the iteration: a start is otherwise the compilation of many small things.
@jax.jit
def _are_probabilities(value: Array) -> Array:
    return ((value >= 0).all(-1) & (value.sum(-1) > 0)).all()


@partial(jax.jit, static_argnums=1)
def _log_probabilities(value: Array, axis: int) -> Array:
    return jnp.moveaxis(jnp.log(jnp.maximum(value, jnp.finfo(value.dtype).tiny)), -1, axis)


def _check_shape(site: str, value: Array, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"start: site {site!r} must have shape {shape}, got {value.shape}")
