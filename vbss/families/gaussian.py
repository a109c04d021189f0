"""The Gaussian family of real scalars and vectors, and what it shares with other Gaussian families."""

from abc import abstractmethod
from math import log, pi, sqrt
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.families.base import Natural, PointFamily, Value
from vbss.kinds import quadratic_coefficients
from vbss.triangular import cholesky, solve_lower, solve_upper


class GaussianVectors(PointFamily):
    """What Gaussian families share: all is done on vectors x in R^L, log q = <h, x> - x' Lambda x / 2 - A.

    Natural parameters are `linear` h (*batch, L) and `precision` Lambda (*batch, L, L); statistics are x and -x x' / 2.
    """

    @abstractmethod
    def vector(self, value: Value) -> Float[Array, "*batch l"]:
        """The vector of a value."""

    @abstractmethod
    def value(self, vector: Float[Array, "*batch l"]) -> Value:
        """The value of a vector: the inverse of `vector`."""

    def log_partition(self, natural):
        factor = cholesky(natural["precision"])
        product = (natural["linear"] * _solve(factor, natural["linear"])).sum(-1)
        return product / 2 - _half_log_determinant(factor) + factor.shape[-1] / 2 * log(2 * pi)

    def means(self, natural):
        mean, root = moments(natural)
        second = _outer(mean) + root @ jnp.swapaxes(root, -1, -2)
        return {"linear": mean, "precision": -second / 2}

    def natural(self, means):
        mean = means["linear"]
        factor = cholesky(-2 * means["precision"] - _outer(mean))
        identity = jnp.broadcast_to(jnp.eye(mean.shape[-1], dtype=mean.dtype), factor.shape)
        return {"linear": _solve(factor, mean), "precision": solve_upper(factor, solve_lower(factor, identity))}

    def entropy(self, natural):
        factor = cholesky(natural["precision"])
        return factor.shape[-1] / 2 * (1 + log(2 * pi)) - _half_log_determinant(factor)

    def kl(self, natural, other):
        # From the moments, not the log partitions: what the distance of the means from zero adds to those cancels.
        factor, other_factor = (cholesky(member["precision"]) for member in (natural, other))
        mean, other_mean = _solve(factor, natural["linear"]), _solve(other_factor, other["linear"])
        ratio = solve_lower(factor, other_factor)
        deviation = matrix_vector(jnp.swapaxes(other_factor, -1, -2), mean - other_mean)
        squares = (ratio**2).sum((-2, -1)) + (deviation**2).sum(-1) - mean.shape[-1]
        return squares / 2 + _half_log_determinant(factor) - _half_log_determinant(other_factor)

    def sample(self, natural, key):
        mean, root = moments(natural)
        return self.value(mean + matrix_vector(root, jax.random.normal(key, mean.shape, mean.dtype)))

    def mode(self, natural):
        return self.center(natural)

    def perturbed(self, natural, key):
        # The mean moves by about one standard deviation, the precision within the frame of its Cholesky factor.
        key_mean, key_scale = jax.random.split(key)
        mean, root = moments(natural)
        moved = mean + matrix_vector(root, jax.random.normal(key_mean, mean.shape, mean.dtype))
        scale = jnp.exp(jax.random.normal(key_scale, mean.shape, mean.dtype) / 4)
        factor = cholesky(natural["precision"]) * scale[..., None, :]
        precision = factor @ jnp.swapaxes(factor, -1, -2)
        return {"linear": matrix_vector(precision, moved), "precision": precision}

    def statistics(self, value):
        vector = self.vector(value)
        return {"linear": vector, "precision": -_outer(vector) / 2}

    def initial(self, value):
        vector = self.vector(value)
        identity = jnp.eye(vector.shape[-1], dtype=vector.dtype)
        precision = jnp.broadcast_to(identity, (*vector.shape, vector.shape[-1]))
        return {"linear": vector, "precision": precision}

    def probed(self, natural, key):
        # Thrice as far out as draws lie, to meet kinks and steps that are not in the midst.
        perturbed = self.perturbed(natural, key)
        center, drawn = self.vector(self.center(perturbed)), self.vector(self.sample(perturbed, key))
        return self.value(center + 3 * (drawn - center))

    def points(self, natural):
        # The mean +- sqrt(L) times the columns of a root of the covariance.
        mean, root = moments(natural)
        offsets = jnp.moveaxis(root, -1, 0) * sqrt(mean.shape[-1])
        return self.value(jnp.concatenate([mean[None] + offsets, mean[None] - offsets]))

    def coefficients(self, objective, value):
        vector = self.vector(value)
        gradient, precision = quadratic_coefficients(lambda v: objective(self.value(v)), vector, 1)
        return {"linear": gradient + matrix_vector(precision, vector), "precision": precision}

    def center(self, natural):
        return self.value(_solve(cholesky(natural["precision"]), natural["linear"]))

    def reference(self, natural):
        mean = _solve(cholesky(natural["precision"]), natural["linear"])
        return self.value(mean), (natural["linear"] * mean).sum(-1) / 2


class Gaussian(GaussianVectors):
    """x in R^L (event_rank 1) or R (0, as vectors with L = 1).

    Args:
        event_rank: 0 (every entry on its own) or 1 (vectors along the last axis).
    """

    claim: ClassVar[str] = "quadratic in"
    event_rank: int = eqx.field(static=True)

    def vector(self, value):
        return value if self.event_rank else value[..., None]

    def value(self, vector):
        return vector if self.event_rank else vector[..., 0]

    def distribution(self, natural):
        mean = self.center(natural)
        if self.event_rank:
            with relaxed_promotion():
                return dist.MultivariateNormal(mean, precision_matrix=natural["precision"])
        return dist.Normal(mean, natural["precision"][..., 0, 0] ** -0.5)

    def natural_of(self, fn: Any):
        with relaxed_promotion():
            mean = jnp.broadcast_to(fn.loc, fn.shape())
            if self.event_rank:
                precision = jnp.broadcast_to(fn.precision_matrix, (*mean.shape, mean.shape[-1]))
            else:
                precision = jnp.broadcast_to(fn.scale**-2, mean.shape)[..., None, None]
        return {"linear": matrix_vector(precision, self.vector(mean)), "precision": precision}


def moments(natural: Natural) -> tuple[Float[Array, "*batch l"], Float[Array, "*batch l l"]]:
    """The mean, and the root L^-T of the covariance, where L L' is the precision."""
    factor = cholesky(natural["precision"])
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return _solve(factor, natural["linear"]), solve_upper(factor, identity)


def _solve(factor: Float[Array, "*batch l l"], vector: Float[Array, "*batch l"]) -> Float[Array, "*batch l"]:
    """(L L')^-1 x."""
    return solve_upper(factor, solve_lower(factor, vector[..., None]))[..., 0]


def _half_log_determinant(factor: Float[Array, "*batch l l"]) -> Float[Array, "*batch"]:
    """log|L L'| / 2."""
    return jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def _outer(vector: Float[Array, "*batch l"]) -> Float[Array, "*batch l l"]:
    return vector[..., :, None] * vector[..., None, :]


def matrix_vector(matrix: Float[Array, "*batch l l"], vector: Float[Array, "*batch l"]) -> Float[Array, "*batch l"]:
    return jnp.einsum("...ij,...j->...i", matrix, vector)
