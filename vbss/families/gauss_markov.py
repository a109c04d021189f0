"""Gauss-Markov chains: Gaussian paths whose precision couples neighbouring times alone.

No array is as large as the square of a path: the precision is kept as its band, recursions eliminate one time after
the other, and derivatives are read in three interleaved colours of times that do not see each other.
"""

from math import log, pi
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.distributions.gauss_markov_chain import GaussMarkovChain
from vbss.errors import InputError
from vbss.families.base import Natural, ValueFamily


class GaussMarkov(ValueFamily):
    """Paths x_1, ..., x_T in R^L, values (*batch, T, L), with a block-tridiagonal precision.

    log q = sum_t <linear_t, x_t> - x_t' precision_t x_t / 2 - sum_t x_t' coupling_t x_{t+1} - A: natural parameters
    `linear` (*batch, T, L), `precision` (*batch, T, L, L) and `coupling` (*batch, T-1, L, L), whose statistics are x_t,
    -x_t x_t' / 2 and -x_t x_{t+1}'.

    The log partition is a forward elimination (its gradient is the Rauch-Tung-Striebel smoother); moments and draws
    run backwards through the conditionals that it leaves.
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
        factor, whitened = _eliminated(natural)
        return _log_volume(factor) + (whitened[..., -1] ** 2).sum((-2, -1)) / 2

    def entropy(self, natural):
        factor, _ = _eliminated(natural)
        return _log_volume(factor) + factor.shape[-3] * factor.shape[-1] / 2

    def kl(self, natural, other):
        # From the moments, not the log partitions: what the distance of the means from zero adds to those cancels.
        mean, covariance, cross = _moments(natural)
        factor, other_factor = _eliminated(natural)[0], _eliminated(other)[0]
        deviation = mean - self.center(other)
        within = (other["precision"] * covariance).sum((-3, -2, -1))
        ahead = 2 * (other["coupling"] * cross).sum((-3, -2, -1))
        squares = (
            within + ahead + (deviation * _times(other, deviation)).sum((-2, -1)) - mean.shape[-2] * mean.shape[-1]
        )
        return squares / 2 + _log_volume(other_factor) - _log_volume(factor)

    def means(self, natural):
        mean, covariance, cross = _moments(natural)
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
        # E[f] = f(mean) + <Hessian, covariance> / 2, and both are needed within the band alone.
        mean, covariance, cross = _moments(natural)
        units, columns = _unit_paths(mean), _by_colour(covariance, cross)

        def curvature(unit, column):
            return jax.jvp(lambda path: jax.jvp(objective, (path,), (unit,))[1], (mean,), (column,))[1]

        return objective(mean) + jax.vmap(curvature)(units, columns).sum() / 2

    def coefficients(self, objective, value):
        gradient, product = jax.linearize(jax.grad(objective), value)
        natural = _from_colours(-jax.vmap(product)(_unit_paths(value)))
        return {"linear": gradient + _times(natural, value), **natural}

    def center(self, natural):
        return _path(natural, None)

    def sample(self, natural, key):
        linear = natural["linear"]
        return _path(natural, jax.random.normal(key, linear.shape, linear.dtype))

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
        mean, covariance, _ = _moments(natural)
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


def _eliminated(natural: Natural) -> tuple[Float[Array, "*batch t l l"], Float[Array, "*batch t l c"]]:
    """One time integrated out after the other: each pivot's Cholesky factor, and L^-1 [coupling, linear], c = L + 1.

    The coupling behind the last time is zero.
    """
    precision, linear = natural["precision"], natural["linear"]
    coupling = jnp.concatenate([natural["coupling"], jnp.zeros_like(precision[..., :1, :, :])], -3)
    columns = jnp.concatenate([coupling, linear[..., None]], -1)

    def step(previous, inputs):
        precision, columns = inputs
        update = _product("...ji,...jk->...ik", previous[..., :-1], previous)
        factor = jnp.linalg.cholesky(precision - update[..., :-1])
        reduced = jnp.concatenate([columns[..., :-1], columns[..., -1:] - update[..., -1:]], -1)
        whitened = solve_triangular(factor, reduced, lower=True)
        return whitened, (factor, whitened)

    inputs = jnp.moveaxis(precision, -3, 0), jnp.moveaxis(columns, -3, 0)
    _, (factor, whitened) = jax.lax.scan(step, jnp.zeros_like(columns[..., 0, :, :]), inputs)
    return jnp.moveaxis(factor, 0, -3), jnp.moveaxis(whitened, 0, -3)


def _log_volume(factor: Float[Array, "*batch t l l"]) -> Float[Array, "*batch"]:
    """The log partition at `linear` zero."""
    log_pivots = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum((-2, -1))
    return factor.shape[-3] * factor.shape[-1] / 2 * log(2 * pi) - log_pivots


def _conditionals(natural: Natural) -> tuple[Array, Array, Array]:
    """loc, gain and root of x_t | x_{t+1} ~ N(loc_t - gain_t x_{t+1}, root_t root_t'); the last gain is zero."""
    factor, whitened = _eliminated(natural)
    size = factor.shape[-1]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=factor.dtype), factor.shape)
    solved = solve_triangular(factor, jnp.concatenate([whitened, identity], -1), trans=1, lower=True)
    return solved[..., size], solved[..., :size], solved[..., size + 1 :]


def _path(natural: Natural, noise: Float[Array, "*batch t l"] | None) -> Float[Array, "*batch t l"]:
    """The path that white noise is turned into; without noise the mean."""
    loc, gain, root = _conditionals(natural)
    if noise is not None:
        loc = loc + _product("...ij,...j->...i", root, noise)

    def step(following, inputs):
        loc, gain = inputs
        here = loc - _product("...ij,...j->...i", gain, following)
        return here, here

    inputs = jnp.moveaxis(loc, -2, 0), jnp.moveaxis(gain, -3, 0)
    _, path = jax.lax.scan(step, jnp.zeros_like(loc[..., 0, :]), inputs, reverse=True)
    return jnp.moveaxis(path, 0, -2)


def _moments(natural: Natural) -> tuple[Array, Array, Array]:
    """Means, covariances and covariances with the next time: (*batch, T, L), (*batch, T, L, L), (*batch, T-1, L, L)."""
    loc, gain, root = _conditionals(natural)
    own = _product("...ij,...kj->...ik", root, root)

    def step(following, inputs):
        next_mean, next_covariance = following
        loc, gain, own = inputs
        mean = loc - _product("...ij,...j->...i", gain, next_mean)
        cross = -_product("...ij,...jk->...ik", gain, next_covariance)
        covariance = own - _product("...ij,...kj->...ik", cross, gain)
        return (mean, covariance), (mean, covariance, cross)

    inputs = jnp.moveaxis(loc, -2, 0), jnp.moveaxis(gain, -3, 0), jnp.moveaxis(own, -3, 0)
    start = jnp.zeros_like(loc[..., 0, :]), jnp.zeros_like(own[..., 0, :, :])
    _, (mean, covariance, cross) = jax.lax.scan(step, start, inputs, reverse=True)
    return jnp.moveaxis(mean, 0, -2), jnp.moveaxis(covariance, 0, -3), jnp.moveaxis(cross, 0, -3)[..., :-1, :, :]


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
