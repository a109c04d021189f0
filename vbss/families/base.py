"""What an exponential family of the posterior is.

A family describes q(x) = h(x) exp(<eta, s(x)> - A(eta)) for each entry of a batch. Natural parameters eta, statistics s
and mean parameters E[s] are dictionaries with the same keys and shapes: the batch first, then each key's event axes.
"""

from abc import abstractmethod
from functools import reduce
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.kinds import Objective

Natural = dict[str, Array]
Value = Any  # an array, or a tuple of arrays where one family covers several sites


class Family(eqx.Module):
    """An exponential family, proven by its gradient identities: the means are the gradient of the log partition."""

    @abstractmethod
    def log_partition(self, natural: Natural) -> Array:
        """A(eta), of the batch's shape."""

    def means(self, natural: Natural) -> Natural:
        """The expected statistics: the gradient of the log partition function."""
        return jax.grad(lambda eta: self.log_partition(eta).sum())(natural)

    @abstractmethod
    def natural(self, means: Natural) -> Natural:
        """The natural parameters that have these mean parameters."""

    @abstractmethod
    def entropy(self, natural: Natural) -> Array:
        """-E[log q], of the batch's shape."""

    def kl(self, natural: Natural, other: Natural) -> Array:
        """KL(q(natural) || q(other)), of the batch's shape."""
        gap = {key: natural[key] - other[key] for key in natural}
        return self.log_partition(other) - self.log_partition(natural) + self.inner(gap, self.means(natural))

    def inner(self, natural: Natural, statistics: Natural) -> Array:
        """<eta, s> for each entry of the batch."""
        rank = jax.eval_shape(self.log_partition, natural).ndim
        products = [natural[key] * statistics[key] for key in natural]
        return reduce(jnp.add, [product.sum(tuple(range(rank, product.ndim))) for product in products])

    @abstractmethod
    def sample(self, natural: Natural, key: Array) -> Value:
        """One draw for each entry of the batch."""

    @abstractmethod
    def mode(self, natural: Natural) -> Value:
        """The most probable value."""

    @abstractmethod
    def perturbed(self, natural: Natural, key: Array) -> Natural:
        """Another proper member, at random about this one: where probes look."""

    @abstractmethod
    def distribution(self, natural: Natural) -> dist.Distribution:
        """The marginal over the batch, as a NumPyro distribution."""

    @abstractmethod
    def natural_of(self, fn: dist.Distribution) -> Natural:
        """The natural parameters of a NumPyro distribution of this family."""


class ValueFamily(Family):
    """Latents whose program reads their value.

    `integrate` is exact for, and `coefficients` recovers eta from, a function of the value that is linear in the
    statistics.

    Attributes:
        claim: what E_q[log p] must be in a site of this family, as in "quadratic in", for messages.
    """

    claim: ClassVar[str]

    @abstractmethod
    def statistics(self, value: Value) -> Natural:
        """s(x), in the shapes of the natural parameters."""

    @abstractmethod
    def initial(self, value: Value) -> Natural:
        """A proper member of the family about a value, of its shape: a random start where the value is drawn."""

    @abstractmethod
    def integrate(self, objective: Objective, natural: Natural) -> Array:
        """E[objective(x)], exact for functions that are linear in the statistics."""

    @abstractmethod
    def coefficients(self, objective: Objective, value: Value) -> Natural:
        """The coefficients of the statistics in the objective, read from its derivatives at a value."""

    @abstractmethod
    def center(self, natural: Natural) -> Value:
        """A value in the midst of the distribution, where coefficients are read with least rounding."""

    def probed(self, natural: Natural, key: Array) -> Value:
        """A random value for probes, where coefficients can be read in single precision."""
        return self.sample(self.perturbed(natural, key), key)

    def symmetric(self, value: Value) -> Value:
        """The value with the symmetries of its matrices, which derivatives with respect to it shall keep."""
        return value

    def reference(self, natural: Natural) -> tuple[Value, Array]:
        """A simple value x0 and <eta, s(x0)>, of the batch's shape."""
        value = self.center(natural)
        return value, self.inner(natural, self.statistics(value))


class PointFamily(ValueFamily):
    """Value families whose exact rule is a few equally weighted points."""

    @abstractmethod
    def points(self, natural: Natural) -> Value:
        """(points, *value shape)."""

    def integrate(self, objective, natural):
        return jax.vmap(objective)(self.points(natural)).mean()


class StatisticsFamily(Family):
    """Latents whose program reads only their sufficient statistics: natural parameters have the statistics' names.

    `sample` and `mode` are values of the NumPyro site; the program sees their statistics.
    """

    @abstractmethod
    def mode_statistics(self, natural: Natural) -> Natural:
        """The statistics of the mode."""
