"""Exponential families of latent values: exact rules, and natural parameters read from derivatives.

A family describes q(x) = exp(<eta, s(x)> - A(eta)) for each entry of a batch. Its `points` are equally weighted and
integrate its statistics exactly; its `read` recovers eta from a function that is linear in those statistics.
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from equinox import AbstractVar
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array

from vbss.distributions.discrete import Indicator, MarkovChain
from vbss.kinds import Objective, quadratic_coefficients

Natural = dict[str, Array]


class ValueFamily(eqx.Module):
    """Latents whose program reads their value."""

    event_rank: ClassVar[int]

    @abstractmethod
    def initial(self, value: Array) -> Natural:
        """A proper member of the family with the shape of the value."""

    @abstractmethod
    def points(self, natural: Natural) -> Array:
        """(points, *value shape), equally weighted and exact for the statistics."""

    @abstractmethod
    def read(self, objective: Objective, natural: Natural) -> Natural:
        """The coefficients of the statistics in the objective."""

    @abstractmethod
    def log_partition(self, natural: Natural) -> Array: ...

    @abstractmethod
    def entropy(self, natural: Natural) -> Array: ...

    @abstractmethod
    def reference(self, natural: Natural) -> tuple[Array, Array]:
        """A simple value x0 and <eta, s(x0)>."""

    @abstractmethod
    def distribution(self, natural: Natural) -> dist.Distribution: ...


class Gaussian(ValueFamily):
    """x in R^L (event_rank 1) or R (0), with natural parameters `linear` h and `precision` Lambda.

    log q = <h, x> - x' Lambda x / 2 - A.
    """

    event_rank: int = eqx.field(static=True)  # type: ignore[misc]

    def initial(self, value):
        size = self._size(value)
        shape = value.shape if self.event_rank else (*value.shape, 1)
        return {
            "linear": jnp.zeros(shape, value.dtype),
            "precision": jnp.broadcast_to(jnp.eye(size, dtype=value.dtype), (*shape, size)),
        }

    def _size(self, value):
        return value.shape[-1] if self.event_rank else 1

    def _moments(self, natural):
        factor = jnp.linalg.cholesky(natural["precision"])
        mean = jax.scipy.linalg.cho_solve((factor, True), natural["linear"][..., None])[..., 0]
        half_log_determinant = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        return mean, factor, half_log_determinant

    def points(self, natural):
        # mean +- sqrt(L) times the columns of a square root of the covariance: L^-T for precision L L'.
        mean, factor, _ = self._moments(natural)
        size = mean.shape[-1]
        identity = jnp.broadcast_to(jnp.eye(size, dtype=mean.dtype), factor.shape)
        root = jax.scipy.linalg.solve_triangular(factor, identity, trans=1, lower=True)
        offsets = jnp.moveaxis(root, -1, 0) * jnp.sqrt(jnp.asarray(size, mean.dtype))
        values = jnp.concatenate([mean[None] + offsets, mean[None] - offsets])
        return values if self.event_rank else values[..., 0]

    def read(self, objective, natural):
        mean = self._moments(natural)[0]
        value = mean if self.event_rank else mean[..., 0]
        gradient, precision = quadratic_coefficients(objective, value, self.event_rank)
        linear = gradient + jnp.einsum("...ij,...j->...i", precision, mean)
        return {"linear": linear, "precision": precision}

    def log_partition(self, natural):
        mean, _, half_log_determinant = self._moments(natural)
        size = mean.shape[-1]
        return (natural["linear"] * mean).sum(-1) / 2 - half_log_determinant + size / 2 * jnp.log(2 * jnp.pi)

    def entropy(self, natural):
        mean, _, half_log_determinant = self._moments(natural)
        return mean.shape[-1] / 2 * (1 + jnp.log(2 * jnp.pi)) - half_log_determinant

    def reference(self, natural):
        # The mean: the terms of the log-weights stay small wherever the origin is.
        mean = self._moments(natural)[0]
        return (mean if self.event_rank else mean[..., 0]), (natural["linear"] * mean).sum(-1) / 2

    def distribution(self, natural):
        mean = self._moments(natural)[0]
        if self.event_rank:
            return dist.MultivariateNormal(mean, precision_matrix=natural["precision"])
        return dist.Normal(mean[..., 0], natural["precision"][..., 0, 0] ** -0.5)


class Gamma(ValueFamily):
    """u > 0: natural parameters `linear` -b and `log` a - 1 of -b u + (a - 1) log u."""

    event_rank: ClassVar[int] = 0

    def initial(self, value):
        return {"linear": -jnp.ones_like(value), "log": jnp.zeros_like(value)}

    def points(self, natural):
        # E[u](1 +- s) has the mean of u, and of log u when log(1 - s^2) = 2 (E[log u] - log E[u]).
        concentration = natural["log"] + 1
        mean = concentration / -natural["linear"]
        log_product = 2 * _log_gap(concentration)
        above = 1 + jnp.sqrt(-jnp.expm1(log_product))
        below = jnp.exp(log_product) / above  # 1 - s, which cancels at small concentrations
        return jnp.stack([mean * above, mean * below])

    def read(self, objective, natural):
        value = (natural["log"] + 1) / -natural["linear"]
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        return {"linear": gradient + curvature, "log": -value * curvature}

    def log_partition(self, natural):
        concentration = natural["log"] + 1
        return gammaln(concentration) - concentration * jnp.log(-natural["linear"])

    def entropy(self, natural):
        a, b = natural["log"] + 1, -natural["linear"]
        # gammaln(a) - (a - 1) digamma(a) + a, whose large parts cancel: by Stirling's series beyond 30.
        large = jnp.maximum(a, 30.0)
        series = (1 + jnp.log(2 * jnp.pi * large)) / 2 - 1 / (3 * large) - 1 / (12 * large**2)
        return jnp.where(a > 30, series, a + gammaln(a) + (1 - a) * digamma(a)) - jnp.log(b)

    def reference(self, natural):
        return jnp.ones_like(natural["linear"]), natural["linear"]

    def distribution(self, natural):
        return dist.Gamma(natural["log"] + 1, -natural["linear"])


def _log_gap(concentration: Array) -> Array:
    """digamma(a) - log(a), by its asymptotic series beyond 30, where the difference is lost to rounding."""
    large = jnp.maximum(concentration, 30.0)
    series = -1 / (2 * large) - 1 / (12 * large**2) + 1 / (120 * large**4) - 1 / (252 * large**6)
    return jnp.where(concentration > 30, series, digamma(concentration) - jnp.log(concentration))


class StatisticsFamily(eqx.Module):
    """Latents whose program reads only their sufficient statistics: natural parameters have the statistics' names.

    `axis` is that of the states in the statistic `onehot`.
    """

    axis: AbstractVar[int]

    @abstractmethod
    def log_partition(self, natural: Natural) -> Array: ...

    def means(self, natural: Natural) -> Natural:
        """The expected statistics: the gradient of the log partition function."""
        return jax.grad(lambda eta: self.log_partition(eta).sum())(natural)

    def entropy(self, natural: Natural) -> Array:
        means = self.means(natural)
        product = sum((natural[key] * means[key]).sum() for key in natural)
        return self.log_partition(natural).sum() - product

    @abstractmethod
    def distribution(self, natural: Natural) -> dist.Distribution: ...


class Categorical(StatisticsFamily):
    """One-hot vectors, their states along `axis`; natural parameters are unnormalised log-probabilities."""

    axis: int = eqx.field(static=True, default=-1)

    def log_partition(self, natural):
        return jax.nn.logsumexp(natural["onehot"], self.axis)

    def means(self, natural):
        return {"onehot": jax.nn.softmax(natural["onehot"], self.axis)}

    def entropy(self, natural):
        # Both share one exponential with `means`, which exp(log_softmax) would not.
        log_probs = jax.nn.log_softmax(natural["onehot"], self.axis)
        return -(jax.nn.softmax(natural["onehot"], self.axis) * log_probs).sum()

    def distribution(self, natural):
        """Over the batch, with the states last."""
        log_probs = jnp.moveaxis(jax.nn.log_softmax(natural["onehot"], self.axis), self.axis, -1)
        return Indicator(log_probs, self.axis, validate_args=False)


class Chain(StatisticsFamily):
    """Discrete Markov chains: log potentials of states (*batch, T, K) and of neighbouring pairs (*batch, T-1, K, K).

    Only the forward recursion is written; its gradient is the forward-backward algorithm.
    """

    axis: ClassVar[int] = -1

    def log_partition(self, natural):
        unary, pair = natural["onehot"], natural["pair"]

        def step(message, potentials):
            here, between = potentials
            return jax.nn.logsumexp(message[..., :, None] + between, -2) + here, None

        potentials = jnp.moveaxis(unary[..., 1:, :], -2, 0), jnp.moveaxis(pair, -3, 0)
        last, _ = jax.lax.scan(step, unary[..., 0, :], potentials)
        return jax.nn.logsumexp(last, -1)

    def distribution(self, natural):
        """The posterior chain's marginals over states, one categorical for each time."""
        return dist.CategoricalProbs(self.means(natural)["onehot"])


def statistics_family(fn: dist.Distribution) -> StatisticsFamily | None:
    """The family of a latent that is read through its statistics, if it is one."""
    if isinstance(fn, Indicator):
        return Categorical(fn.axis)
    if isinstance(fn, MarkovChain):
        return Chain()
    return None


def value_family(fn: dist.Distribution) -> ValueFamily | None:
    """The family that a latent of this distribution keeps in the posterior, if it has one."""
    if isinstance(fn, dist.Normal):
        return Gaussian(0)
    if isinstance(fn, dist.MultivariateNormal):
        return Gaussian(1)
    if isinstance(fn, dist.Gamma):
        return Gamma()
    return None
