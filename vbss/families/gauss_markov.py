"""Gauss-Markov chains: Gaussian paths whose precision couples neighbouring times alone.

No array is as large as the square of a path: the precision is kept as its band, recursions integrate out one time after
the other, and derivatives are read in three interleaved colours of times that do not see each other.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.distributions.gauss_markov_chain import GaussMarkovChain
from vbss.errors import InputError
from vbss.families import gauss_markov_recursions as recursions
from vbss.families.base import Natural, ValueFamily
from vbss.families.chain import Chain
from vbss.kinds import Objective


class SmoothedPath(NamedTuple):
    """What is known of a path without its natural parameters; arrays as in `Moments`.

    Attributes:
        entropy: shape (*batch,).
    """

    mean: Array
    covariance: Array
    cross: Array
    entropy: Array


class GaussMarkov(ValueFamily, Chain):
    """Paths x_1, ..., x_T in R^L, values (*batch, T, L), with a block-tridiagonal precision.

    log q = sum_t <linear_t, x_t> - x_t' precision_t x_t / 2 - sum_t x_t' coupling_t x_{t+1} - A: natural parameters
    `linear` (*batch, T, L), `precision` (*batch, T, L, L) and `coupling` (*batch, T-1, L, L), whose statistics are x_t,
    -x_t x_t' / 2 and -x_t x_{t+1}'.

    The log partition is a forward elimination (its gradient is the smoother); moments and draws run backwards through
    the conditionals that it leaves (`gauss_markov_recursions`).
    """

    claim: ClassVar[str] = "quadratic, coupling neighbouring times alone, in"

    def statistics(self, value):
        return {
            "linear": value,
            "precision": -_outer(value, value) / 2,
            "coupling": -_outer(value[..., :-1, :], value[..., 1:, :]),
        }

    def initial(self, value):
        *batch, length, size = value.shape
        identity = jnp.eye(size, dtype=value.dtype)
        return {
            "linear": value,
            "precision": jnp.broadcast_to(identity, (*batch, length, size, size)),
            "coupling": jnp.zeros((*batch, length - 1, size, size), value.dtype),
        }

    def log_partition(self, natural):
        return recursions.log_partition(recursions.eliminated(natural))

    def smoothed(self, natural):
        elimination = recursions.eliminated(natural)
        return SmoothedPath(*recursions.moments(elimination), _entropy(natural, elimination))

    def entropy(self, natural):
        return _entropy(natural, recursions.eliminated(natural))

    def kl(self, natural, other):
        # From the moments, not the log partitions: what the distance of the means from zero adds to those cancels.
        elimination = recursions.eliminated(natural)
        mean, covariance, cross = recursions.moments(elimination)
        deviation = mean - self.center(other)
        within = (other["precision"] * covariance).sum((-3, -2, -1))
        ahead = 2 * (other["coupling"] * cross).sum((-3, -2, -1))
        squares = (
            within + ahead + (deviation * _times(other, deviation)).sum((-2, -1)) - mean.shape[-2] * mean.shape[-1]
        )
        return squares / 2 + recursions.log_volume(recursions.eliminated(other)) - recursions.log_volume(elimination)

    def means(self, natural):
        mean, covariance, cross = recursions.moments(recursions.eliminated(natural))
        products = self.statistics(mean)
        return products | {
            "precision": products["precision"] - covariance / 2,
            "coupling": products["coupling"] - cross,
        }

    def natural(self, means):
        # The first time's marginal, and each time's regression on the one before it.
        mean = means["linear"]
        products = self.statistics(mean)
        covariance = 2 * (products["precision"] - means["precision"])
        cross = products["coupling"] - means["coupling"]
        size = mean.shape[-1]
        factor = jnp.linalg.cholesky(covariance)
        whitened = solve_triangular(factor[..., :-1, :, :], cross, lower=True)
        gain = solve_triangular(factor[..., :-1, :, :], whitened, trans=1, lower=True)
        residual = covariance[..., 1:, :, :] - _product("...ji,...jk->...ik", whitened, whitened)
        conditional = jnp.concatenate([factor[..., :1, :, :], jnp.linalg.cholesky(residual)], -3)
        identity = jnp.broadcast_to(jnp.eye(size, dtype=mean.dtype), conditional.shape)
        root = solve_triangular(conditional, identity, lower=True)
        precision = _product("...ji,...jk->...ik", root, root)
        regression = _product("...ij,...kj->...ik", root[..., 1:, :, :], gain)
        explained = _product("...ji,...jk->...ik", regression, regression)
        natural = {
            "precision": precision.at[..., :-1, :, :].add(explained),
            "coupling": -_product("...ij,...jk->...ik", gain, precision[..., 1:, :, :]),
        }
        return {"linear": _times(natural, mean), **natural}

    def integrate(self, objective, natural):
        return self.integrate_smoothed(objective, self.smoothed(natural))

    def integrate_smoothed(self, objective: Objective, smoothed: SmoothedPath) -> Array:
        """`integrate`, given what `smoothed` has found."""
        # E[f] = f(mean) + <Hessian, covariance> / 2, and both are needed within the band alone.
        mean, covariance, cross, _ = smoothed
        units, columns = _unit_paths(mean), _by_colour(covariance, cross)

        def curvature(unit, column):
            return jax.jvp(lambda path: jax.jvp(objective, (path,), (unit,))[1], (mean,), (column,))[1]

        return objective(mean) + jax.vmap(curvature)(units, columns).sum() / 2

    def coefficients(self, objective, value):
        gradient, product = jax.linearize(jax.grad(objective), value)
        natural = _from_colours(-jax.vmap(product)(_unit_paths(value)))
        return {"linear": gradient + _times(natural, value), **natural}

    def center(self, natural):
        return recursions.path(recursions.eliminated(natural), None)

    def sample(self, natural, key):
        linear = natural["linear"]
        noise = jax.random.normal(key, linear.shape, linear.dtype)
        return recursions.path(recursions.eliminated(natural), noise)

    def mode(self, natural):
        return self.center(natural)

    def perturbed(self, natural, key):
        # Each pair of neighbours gains a random quadratic form, about a quarter as strong as their own precisions.
        key_path, key_before, key_after = jax.random.split(key, 3)
        coupling, root = natural["coupling"], jnp.linalg.cholesky(natural["precision"])
        scale = 2 * root.shape[-1] ** 0.5
        before = root[..., :-1, :, :] @ (jax.random.normal(key_before, coupling.shape, coupling.dtype) / scale)
        after = root[..., 1:, :, :] @ (jax.random.normal(key_after, coupling.shape, coupling.dtype) / scale)
        precision = natural["precision"] / 2
        precision = precision.at[..., :-1, :, :].add(before @ jnp.swapaxes(before, -1, -2))
        precision = precision.at[..., 1:, :, :].add(after @ jnp.swapaxes(after, -1, -2))
        moved = {"precision": precision, "coupling": coupling / 2 + before @ jnp.swapaxes(after, -1, -2)}
        return {"linear": _times(moved, self.sample(natural, key_path)), **moved}

    def distribution(self, natural):
        """The marginal at each time, of batch shape (*batch, T)."""
        mean, covariance, _ = recursions.moments(recursions.eliminated(natural))
        return dist.MultivariateNormal(mean, covariance_matrix=covariance)

    def natural_of(self, fn):
        """Of a `vbss.distributions.GaussMarkovChain`.

        Raises:
            InputError: for another distribution: marginals do not determine a chain.
        """
        if not isinstance(fn, GaussMarkovChain):
            raise InputError(f"fn must be a GaussMarkovChain, got {type(fn).__name__}.")
        zeros = jnp.zeros(fn.shape(), fn.initial_loc.dtype)
        with relaxed_promotion():
            return self.coefficients(lambda path: fn.log_prob(path).sum(), zeros)


def _product(subscripts: str, *operands: Array) -> Array:
    # A GPU's default ten-bit mantissa does not survive a long recursion.
    return jnp.einsum(subscripts, *operands, precision="highest")


def _outer(left: Array, right: Array) -> Array:
    return left[..., :, None] * right[..., None, :]


def _times(band: Natural, path: Float[Array, "*batch t l"]) -> Float[Array, "*batch t l"]:
    """The product of the whole precision matrix and a path."""
    forward = _product("...ij,...j->...i", band["coupling"], path[..., 1:, :])
    backward = _product("...ji,...j->...i", band["coupling"], path[..., :-1, :])
    within = _product("...ij,...j->...i", band["precision"], path)
    return within.at[..., :-1, :].add(forward).at[..., 1:, :].add(backward)


def _entropy(natural: Natural, elimination: recursions.Elimination) -> Float[Array, "*batch"]:
    length, size = natural["linear"].shape[-2:]
    return recursions.log_volume(elimination) + length * size / 2


def _distances(length: int, rank: int) -> Array:
    """How far ahead, -1, 0 or 1, a time of each colour lies from each time: (3, 1, ..., T, 1, 1) of this rank.

    Times of one colour are three apart, so each time sees exactly one of them within the band.
    """
    distances = (np.arange(3)[:, None] - np.arange(length)[None] + 1) % 3 - 1
    return jnp.asarray(distances.reshape(3, *(1,) * (rank - 4), length, 1, 1))


def _unit_paths(path: Float[Array, "*batch t l"]) -> Float[Array, "directions *batch t l"]:
    """For each colour and coordinate, the path that is one there and zero elsewhere: 3 L directions."""
    size = path.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=path.dtype), (3, *path.shape, size))
    units = jnp.where(_distances(path.shape[-2], identity.ndim) == 0, identity, 0)
    return jnp.moveaxis(units, -1, 1).reshape(3 * size, *path.shape)


def _by_colour(
    within: Float[Array, "*batch t l l"], ahead: Float[Array, "*batch t-1 l l"]
) -> Float[Array, "directions *batch t l"]:
    """The products of a symmetric matrix, given by its band, with each unit path, as far as they lie in the band."""
    zero = jnp.zeros_like(within[..., :1, :, :])
    behind = jnp.concatenate([zero, jnp.swapaxes(ahead, -1, -2)], -3)
    ahead = jnp.concatenate([ahead, zero], -3)
    distances = _distances(within.shape[-3], within.ndim + 1)
    blocks = jnp.where(distances == 0, within[None], jnp.where(distances == 1, ahead[None], behind[None]))
    return jnp.moveaxis(blocks, -1, 1).reshape(3 * within.shape[-1], *within.shape[:-1])


def _from_colours(products: Float[Array, "directions *batch t l"]) -> Natural:
    """The band of a matrix from its products with the unit paths."""
    size = products.shape[-1]
    blocks = jnp.moveaxis(products.reshape(3, size, *products.shape[1:]), 1, -1)
    distances = _distances(products.shape[-2], blocks.ndim)
    return {
        "precision": jnp.where(distances == 0, blocks, 0).sum(0),
        "coupling": jnp.where(distances == 1, blocks, 0).sum(0)[..., :-1, :, :],
    }
