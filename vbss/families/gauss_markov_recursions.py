"""Recursions of Gauss-Markov chains: times integrated out one after the other, and moments and draws on the way back.

A chain is cut into stretches that are gone through side by side. The last time of each is kept, the others are
integrated out given it and the one kept before, and what is kept is a shorter chain of the same kind. With as many
stretches as times in each, the recursions take about 2 sqrt(T) steps in place of T, each on vectors of stretches.

Inside, the axes of matrices stand in front and that of the stretches last: what is vectorised over is contiguous.
"""

from collections.abc import Callable
from math import isqrt, log, pi
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.families.base import Natural
from vbss.triangular import UNROLLED_SIZE, batched_cholesky, batched_solve_lower, batched_solve_upper


class Moments(NamedTuple):
    """Of paths x_1, ..., x_T in R^L.

    Attributes:
        mean: shape (*batch, T, L).
        covariance: of each time, shape (*batch, T, L, L).
        cross: covariance of each time and the next, shape (*batch, T-1, L, L).
    """

    mean: Array
    covariance: Array
    cross: Array


class Links(NamedTuple):
    """Times integrated out in turn, each given the next one and the one kept before: shapes (steps, l, c, *batch, n).

    Attributes:
        factor: L, Cholesky factors of the pivots, c = l.
        whitened: L^-1 [coupling to the next, linear, coupling to the one kept before], c = 2 l + 1.
    """

    factor: Array
    whitened: Array


class Elimination(NamedTuple):
    """A chain with all its times integrated out, first those inside the stretches, then the last of each."""

    inner: Links
    kept: Links
    length: int


def eliminated(natural: Natural) -> Elimination:
    """The chain of natural parameters `linear`, `precision` and `coupling` (see `GaussMarkov`)."""
    length, size = natural["linear"].shape[-2:]
    steps = -(-length // isqrt(length))
    identity = jnp.eye(size, dtype=natural["linear"].dtype)
    # What fills the last stretch has unit precision, and no coupling.
    precision = _in_stretches(natural["precision"], length, steps, identity)
    precision = (precision + jnp.swapaxes(precision, 1, 2)) / 2
    coupling = _in_stretches(natural["coupling"], length, steps, jnp.zeros_like(identity))
    linear = _in_stretches(natural["linear"][..., None], length, steps, jnp.zeros_like(identity[:, :1]))
    inner, chain = _eliminate(precision, coupling, linear, _from_behind(_transposed(coupling[-1])))
    chain = [jnp.moveaxis(array, -1, 0)[..., None] for array in chain]
    # A time of no weight behind the last lets all of them be inside of one stretch.
    precision, coupling, linear = (jnp.concatenate([array, jnp.zeros_like(array[:1])]) for array in chain)
    kept, _ = _eliminate(precision, coupling, linear, jnp.zeros_like(precision[0]))
    return Elimination(inner, kept, length)


def log_volume(elimination: Elimination) -> Float[Array, "*batch"]:
    """The log partition at `linear` zero."""
    inner, kept = (jnp.log(jnp.diagonal(links.factor, axis1=1, axis2=2)).sum((0, -2, -1)) for links in elimination[:2])
    return elimination.length * elimination.kept.factor.shape[1] / 2 * log(2 * pi) - inner - kept


def log_partition(elimination: Elimination) -> Float[Array, "*batch"]:
    size = elimination.kept.factor.shape[1]
    inner, kept = ((links.whitened[:, :, size] ** 2).sum((0, 1, -1)) for links in elimination[:2])
    return log_volume(elimination) + (inner + kept) / 2


def moments(elimination: Elimination) -> Moments:
    """Means and covariances, from the last time to the first."""
    zeros = jnp.zeros_like(elimination.kept.factor[0])
    nothing = zeros[:, :1], zeros
    *kept, _ = _moments_inside(elimination.kept, (*nothing, zeros), nothing)
    mean, covariance, cross = (_along_stretches(array) for array in kept)
    following = mean, covariance, _transposed(_from_behind(cross))
    behind = _from_behind(mean), _from_behind(covariance)
    means, covariances, crosses, first = _moments_inside(elimination.inner, following, behind)
    return Moments(
        _in_time(means, mean, elimination.length)[..., 0],
        _in_time(covariances, covariance, elimination.length),
        _in_time(crosses, _from_ahead(_transposed(first)), elimination.length - 1),
    )


def path(elimination: Elimination, noise: Float[Array, "*batch t l"] | None) -> Float[Array, "*batch t l"]:
    """The path that white noise is turned into; without noise the mean."""
    kept_noise = inner_noise = None
    if noise is not None:
        steps = len(elimination.inner.factor) + 1
        noise = _in_stretches(noise[..., None], elimination.length, steps, jnp.zeros((), noise.dtype))
        inner_noise, kept_noise = noise[:-1], jnp.moveaxis(noise[-1], -1, 0)[..., None]
    nothing = jnp.zeros_like(elimination.kept.whitened[0, :, :1])
    kept = _along_stretches(_path_inside(elimination.kept, nothing, nothing, kept_noise))
    inner = _path_inside(elimination.inner, kept, _from_behind(kept), inner_noise)
    return _in_time(inner, kept, elimination.length)[..., 0]


def _eliminate(
    precision: Array, coupling: Array, linear: Array, behind: Array
) -> tuple[Links, tuple[Array, Array, Array]]:
    """Integrate out all times but the last of each stretch; precision, coupling and linear of those, (l, c, *batch, n).

    Args:
        precision, coupling, linear: (steps, l, c, *batch, n), c = l, l and 1.
        behind: coupling of the first time to the last of the stretch before, (l, l, *batch, n).
    """
    size = precision.shape[1]

    def step(carry, inputs):
        (lost, shift, behind), (lost_behind, shift_behind) = carry
        precision, coupling, linear = inputs
        factor = _on_matrices(batched_cholesky, precision - lost)
        columns = jnp.concatenate([coupling, linear - shift, behind], 1)
        whitened = _on_matrices(batched_solve_lower, factor, columns)
        ahead = _product(_transposed(whitened[:, :size]), whitened)
        past = _product(_transposed(whitened[:, size + 1 :]), whitened[:, size:])
        here = ahead[:, :size], ahead[:, size : size + 1], -ahead[:, size + 1 :]
        return (here, (lost_behind + past[:, 1:], shift_behind + past[:, :1])), Links(factor, whitened)

    zero, zero_linear = jnp.zeros_like(precision[0]), jnp.zeros_like(linear[0])
    start = (zero, zero_linear, behind), (zero, zero_linear)
    inputs = precision[:-1], coupling[:-1], linear[:-1]
    ((lost, shift, behind), (lost_behind, shift_behind)), links = jax.lax.scan(step, start, inputs)
    precision = precision[-1] - lost - _from_ahead(lost_behind)
    return links, (precision, _from_ahead(_transposed(behind)), linear[-1] - shift - _from_ahead(shift_behind))


def _conditionals(links: Links) -> tuple[Array, Array, Array, Array]:
    """loc, gain, gain_behind and root of x_t ~ N(loc - gain x_{t+1} - gain_behind x_behind, root root')."""
    size = links.factor.shape[1]
    identity = jnp.eye(size, dtype=links.factor.dtype)
    identity = jnp.broadcast_to(identity.reshape(size, size, *(1,) * (links.factor.ndim - 3)), links.factor.shape)
    columns = jnp.concatenate([links.whitened, identity], 2)
    solved = jax.vmap(lambda f, c: _on_matrices(batched_solve_upper, f, c))(links.factor, columns)
    return (
        solved[:, :, size : size + 1],
        solved[:, :, :size],
        solved[:, :, size + 1 : 2 * size + 1],
        solved[:, :, 2 * size + 1 :],
    )


def _moments_inside(
    links: Links, following: tuple[Array, Array, Array], behind: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Means, covariances and covariances with the next time; the covariance of the first with the one behind.

    Args:
        following: mean and covariance of the time after the links, and its covariance with the one behind.
        behind: mean and covariance of the time kept before.
    """
    mean_behind, covariance_behind = behind

    def step(following, inputs):
        mean, covariance, with_behind = following
        loc, gain, gain_behind, root = inputs
        mean = loc - _product(gain, mean) - _product(gain_behind, mean_behind)
        cross = -_product(gain, covariance) - _product(gain_behind, _transposed(with_behind))
        with_behind = -_product(gain, with_behind) - _product(gain_behind, covariance_behind)
        own = _product(root, _transposed(root))
        own = own - _product(cross, _transposed(gain)) - _product(with_behind, _transposed(gain_behind))
        return (mean, own, with_behind), (mean, own, cross)

    (_, _, first), (means, covariances, crosses) = jax.lax.scan(step, following, _conditionals(links), reverse=True)
    return means, covariances, crosses, first


def _path_inside(links: Links, following: Array, behind: Array, noise: Array | None) -> Array:
    loc, gain, gain_behind, root = _conditionals(links)
    if noise is not None:
        loc = loc + jax.vmap(_product)(root, noise)

    def step(following, inputs):
        loc, gain, gain_behind = inputs
        here = loc - _product(gain, following) - _product(gain_behind, behind)
        return here, here

    return jax.lax.scan(step, following, (loc, gain, gain_behind), reverse=True)[1]


def _product(left: Array, right: Array) -> Array:
    """Of matrices whose axes stand in front."""
    if left.shape[1] > UNROLLED_SIZE:
        # A GPU's default ten-bit mantissa does not survive a long recursion.
        return jnp.einsum("ij...,jk...->ik...", left, right, precision="highest")
    total = left[:, 0, None] * right[None, 0]
    for j in range(1, left.shape[1]):
        total = total + left[:, j, None] * right[None, j]
    return total


def _transposed(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, 0, 1)


def _on_matrices(function: Callable[..., Array], *matrices: Array) -> Array:
    """What a function of matrices in the last two axes makes of those in the first two."""
    return jnp.moveaxis(function(*(jnp.moveaxis(m, (0, 1), (-2, -1)) for m in matrices)), (-2, -1), (0, 1))


def _in_stretches(array: Float[Array, "*batch t i j"], length: int, steps: int, filling: Array) -> Array:
    """(steps, i, j, *batch, n)."""
    *batch, present, rows, columns = array.shape
    num = -(-length // steps)
    more = jnp.broadcast_to(filling, (*batch, num * steps - present, rows, columns))
    array = jnp.concatenate([array, more], -3).reshape(*batch, num, steps, rows, columns)
    rank = len(batch)
    return array.transpose(rank + 1, rank + 2, rank + 3, *range(rank + 1))


def _in_time(inner: Array, kept: Array, length: int) -> Float[Array, "*batch t i j"]:
    """From (steps, i, j, *batch, n), and the last times (i, j, *batch, n)."""
    array = jnp.concatenate([inner, kept[None]])
    array = array.transpose(*range(3, array.ndim), 0, 1, 2)
    return array.reshape(*array.shape[:-4], -1, *array.shape[-2:])[..., :length, :, :]


def _along_stretches(array: Array) -> Array:
    """From (n, i, j, *batch, 1) to (i, j, *batch, n)."""
    return jnp.moveaxis(array[..., 0], 0, -1)


def _from_ahead(array: Array) -> Array:
    """What the next stretch has, the last one zero."""
    return jnp.concatenate([array[..., 1:], jnp.zeros_like(array[..., :1])], -1)


def _from_behind(array: Array) -> Array:
    """What the stretch before has, the first one zero."""
    return jnp.concatenate([jnp.zeros_like(array[..., :1]), array[..., :-1]], -1)
