"""Hand-derived updates of the probabilistic piecewise affine mapping, each pass over the data products of matrices.

Regressors are taken about a point of each piece, x~_nk = [x_n - c_k; 1], where little cancels; of the moments it is the
mean of the piece's positions, which the bound and all updates have in common. Of N positions, D cues and K pieces, an
iteration costs 4 N D K (L + 1) operations, half of them for the moments and half for the pieces; missing cues add as
many products as x~ x~' has entries. Arrays of N K numbers have these two axes alone, one array for each regressor.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.expectation import Observations
from vbss.models.affine_pieces import half_log_determinant, inverse, pairs, position_log_densities
from vbss.posteriors import Posterior
from vbss.triangular import cholesky, solve_lower, solve_upper

_MOST_LEVERAGE = 0.9  # of a position on the regression of its own piece


class _Moments(NamedTuple):
    """Of the regressors about the means, weighted by the pieces' probabilities; missing cues left out.

    Attributes:
        means: of the positions of each piece, (K, L).
        cross: sum_n r o y x~, (K, D, L + 1).
        square: sum_n r o x~ x~', packed, (K, D or 1, P).
    """

    means: Array
    cross: Array
    square: Array


def _probs(posterior: Posterior) -> Float[Array, "n k"]:
    return jax.nn.softmax(posterior.factors["piece"].natural["onehot"], -1)  # type: ignore[attr-defined]


def _cues(model: Any, data: tuple, observations: Observations | None) -> tuple[Array, Array | None]:
    """Centred cues, zero where they were not observed, and the mask as numbers.

    An inference has the cues in its observations. Centred anew in every update, they would be taken for others in each,
    and so would be all that is computed of them.
    """
    _, cues, *rest = data
    is_observed = rest[0] if rest else None
    if observations:
        centred = observations["cues"]["value"]
    else:
        centred = cues - model.cue_means[None]
        centred = centred if is_observed is None else jnp.where(is_observed, centred, 0)
    return centred, None if is_observed is None else is_observed.astype(centred.dtype)


def _regressors(positions: Float[Array, "n l"], points: Float[Array, "k l"]) -> list[Array]:
    """The entries of x~, each (N, K); the last one, 1, is left to broadcast."""
    offsets = [positions[:, i, None] - points[None, :, i] for i in range(positions.shape[1])]
    return [*offsets, jnp.ones((1, 1), positions.dtype)]


def _means(probs: Float[Array, "n k"], positions: Float[Array, "n l"]) -> Float[Array, "k l"]:
    """Of the positions of each piece; 0 of a piece without any.

    Nothing here is of the model, so that a step's bound and updates are compiled with the same moments.
    """
    counts = probs.sum(0)[:, None]
    return _product(probs.T, positions) / jnp.where(counts > 0, counts, 1)


def _products(probs: Float[Array, "n k"], positions: Float[Array, "n l"]) -> tuple[list[Array], list[Array]]:
    """r x~, and the entries of r x~ x~', each (N, K)."""
    regressors = _regressors(positions, _means(probs, positions))
    weighted = [probs * regressor for regressor in regressors]
    rows, columns, _, _ = pairs(len(regressors))
    return weighted, [weighted[i] * regressors[j] for i, j in zip(rows, columns, strict=True)]


def _moments(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> _Moments:
    probs = _probs(posterior)
    cues, is_observed = _cues(model, data, observations)
    weighted, products = _products(probs, data[0])
    cross = jnp.stack([_product(weight.T, cues) for weight in weighted], -1)
    if is_observed is None:
        square = _summed(products)[:, None]
    else:
        square = jnp.stack([_product(product.T, is_observed) for product in products], -1)
    return _Moments(_means(probs, data[0]), cross, square)


def _summed(products: list[Array]) -> Float[Array, "k p"]:
    return jnp.stack([product.sum(0) for product in products], -1)


def about(model: Any, points: Float[Array, "k l"]) -> Float[Array, "k d i"]:
    """The coefficients of the regressors about some points: [A m], m = A c + b."""
    slopes, offsets = model.coefficients[..., :-1], model.coefficients[..., -1]
    values = offsets + jnp.einsum("kdl,kl->kd", slopes, points, precision="highest")
    return jnp.concatenate([slopes, values[..., None]], -1)


def _shift(points: Float[Array, "k l"]) -> Float[Array, "k i j"]:
    """The matrix J of [A b]' = J [A m]', with b = m - A c."""
    num_pieces, size = points.shape
    identity = jnp.broadcast_to(jnp.eye(size + 1, dtype=points.dtype), (num_pieces, size + 1, size + 1))
    return identity.at[:, size, :size].set(-points)


def log_weights(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """pi_k = n_k / N."""
    counts = _probs(posterior).sum(0)
    tiny = jnp.finfo(counts.dtype).tiny
    return jnp.log(jnp.maximum(counts / counts.sum(), tiny))


def centers(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """c_k = sum_n r_nk x_n / n_k; a piece without positions keeps its own."""
    probs = _probs(posterior)
    return jnp.where(probs.sum(0)[:, None] > 0, _means(probs, data[0]), model.centers)


def position_precision(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """Gamma_k = (sum_n r_nk (x_n - c_k)(x_n - c_k)' + s^2 I) / (n_k + 1), without the ones if there is no spread."""
    probs = _probs(posterior)
    size = data[0].shape[1]
    *_, place = pairs(size + 1)
    shift = _means(probs, data[0]) - model.centers
    scatter = _summed(_products(probs, data[0])[1])[:, place[:size, :size]]
    scatter = scatter + probs.sum(0)[:, None, None] * shift[:, :, None] * shift[:, None]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=scatter.dtype), scatter.shape)
    pseudo = (model.spread > 0).astype(probs.dtype)
    counts = probs.sum(0) + pseudo
    scatter = scatter + pseudo * model.spread**2 * identity
    is_dead = (counts <= 0)[:, None, None]
    found = counts[:, None, None] * inverse(jnp.where(is_dead, identity, scatter))
    return jnp.where(is_dead, model.position_precision, found)


def coefficients(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """Weighted least squares of every cue and piece, with the ridge of the prior.

    In [A m] the prior kappa |[A b]|^2 is kappa [A m] J' J [A m]'.
    """
    moments = _moments(model, posterior, data, observations)
    shift = _shift(moments.means)
    *_, place = pairs(shift.shape[-1])
    ridge = model.ridge * jnp.einsum("kji,kjl->kil", shift, shift, precision="highest")
    square = moments.square[..., place] + ridge[:, None]
    # A piece without positions keeps what it has.
    is_dead = jnp.trace(square, axis1=-2, axis2=-1)[..., None, None] <= 0
    identity = jnp.broadcast_to(jnp.eye(shift.shape[-1], dtype=shift.dtype), square.shape)
    factor = cholesky(jnp.where(is_dead, identity, square))
    factor = jnp.broadcast_to(factor, (*moments.cross.shape, moments.cross.shape[-1]))
    found = solve_upper(factor, solve_lower(factor, moments.cross[..., None]))[..., 0]
    found = jnp.where(is_dead[..., 0], about(model, moments.means), found)
    return jnp.einsum("kij,kdj->kdi", shift, found, precision="highest")


def noise_precision(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """1 / sigma_d^2 = (observations + K (L + 1)) / (residual + kappa sum_k |[A b]_kd|^2); as before without any."""
    counts, residual = _residuals(model, posterior, data, observations)
    per_cue = model.coefficients[..., 0].shape[0] * model.coefficients.shape[-1]
    counts = counts + per_cue * (model.ridge > 0).astype(counts.dtype)
    residual = residual + model.ridge * (model.coefficients**2).sum((0, 2))
    is_dead = (counts <= 0) | (residual <= 0)
    return jnp.where(is_dead, model.noise_precision, counts / jnp.where(is_dead, 1, residual))


def _residuals(
    model: Any, posterior: Posterior, data: tuple, observations: Observations
) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """How often each cue was observed, and sum_nk r o (y - a x - b)^2."""
    moments = _moments(model, posterior, data, observations)
    found = about(model, moments.means)
    cues, is_observed = _cues(model, data, observations)
    rows, columns, multiplicity, _ = pairs(found.shape[-1])
    twice = jnp.asarray(multiplicity, found.dtype)
    quadratic = twice.reshape(1, 1, -1) * found[..., rows] * found[..., columns] * moments.square
    explained = 2 * (found * moments.cross).sum((0, 2)) - quadratic.sum((0, 2))
    counts = jnp.full(cues.shape[1], len(cues), cues.dtype) if is_observed is None else is_observed.sum(0)
    return counts, (cues**2).sum(0) - explained


def log_joint(model: Any, data: tuple, observations: Observations | None = None) -> Float[Array, "n k"]:
    """log pi_k + log N(x; c_k, Gamma_k) + sum_d o log N(y_d; a x + b, sigma_d^2)."""
    cues, is_observed = _cues(model, data, observations)
    found, regressors = about(model, model.centers), _regressors(data[0], model.centers)
    precision = model.noise_precision
    weighted = cues * precision[None]
    fit = sum(_product(weighted, found[..., i].T) * regressor for i, regressor in enumerate(regressors))
    for i, j, multiplicity in zip(*pairs(len(regressors))[:3], strict=True):
        square = float(multiplicity / 2) * precision[None] * found[..., i] * found[..., j]
        of_cues = square.sum(-1)[None] if is_observed is None else _product(is_observed, square.T)
        fit = fit - of_cues * regressors[i] * regressors[j]
    log_precision = (jnp.log(precision) - log(2 * pi))[None]
    each = (log_precision if is_observed is None else is_observed * log_precision) - precision[None] * cues**2
    return position_log_densities(model.pieces, data[0]) + fit + each.sum(-1, keepdims=True) / 2


def left_out_variance(model: Any, data: tuple) -> Float[Array, " d"]:
    """The mean square error at each position of the regressions without it: residuals over 1 - leverage.

    The pieces' probabilities stay as they are. A position that its pieces cannot do without says nothing; where most
    are such, the map is taken to know no more than the cues' means. It is at least as wrong as where it was fitted.
    """
    cues, _ = _cues(model, data, None)
    probs = jax.nn.softmax(log_joint(model, data), -1).T
    offset = data[0][None] - model.centers[:, None]
    regressors = jnp.concatenate([offset, jnp.ones_like(offset[..., :1])], -1)
    shift = _shift(model.centers)
    square = jnp.einsum("kn,kni,knj->kij", probs, regressors, regressors, precision="highest")
    square = square + model.ridge * jnp.einsum("kji,kjl->kil", shift, shift, precision="highest")
    least = jnp.finfo(square.dtype).eps * jnp.eye(square.shape[-1], dtype=square.dtype)
    white = solve_lower(cholesky(square + least[None]), jnp.swapaxes(regressors, 1, 2))
    leverage = probs * (white**2).sum(1)
    is_counted = leverage.max(0) < _MOST_LEVERAGE
    weights = jnp.where(is_counted[None], probs / (1 - jnp.minimum(leverage, _MOST_LEVERAGE)) ** 2, 0)

    def of_piece(piece: tuple[Array, Array, Array]) -> Array:
        weight, regressor, found = piece
        return (weight[:, None] * (cues - _product(regressor, found.T)) ** 2).sum(0)

    count = is_counted.sum().astype(cues.dtype)
    found = jax.lax.map(of_piece, (weights, regressors, about(model, model.centers))).sum(0) / jnp.maximum(count, 1)
    found = jnp.where(2 * count > len(cues), found, (cues**2).mean(0))
    return jnp.maximum(found, 1 / model.noise_precision)


def piece(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """r_nk, as logits."""
    return {"onehot": log_joint(model, data, observations)}


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """The bound from the moments, which the updates need too."""
    natural = posterior.factors["piece"].natural["onehot"]  # type: ignore[attr-defined]
    probs = jax.nn.softmax(natural, -1)
    counts, residual = _residuals(model, posterior, data, observations)
    precision = model.noise_precision
    of_cues = (counts * (jnp.log(precision) - log(2 * pi)) - precision * residual).sum() / 2
    entropy_and_positions = (
        probs * (position_log_densities(model.pieces, data[0]) - jax.nn.log_softmax(natural, -1))
    ).sum()
    squares = (model.coefficients**2).sum((0, 2))
    per_cue = model.coefficients.shape[0] * model.coefficients.shape[-1]
    ridge = (
        per_cue * jnp.log(jnp.where(model.ridge > 0, model.ridge * precision, 1)) - model.ridge * precision * squares
    )
    trace = jnp.trace(model.position_precision, axis1=-2, axis2=-1)
    of_spread = half_log_determinant(model.position_precision) - model.spread**2 * trace / 2
    spread = jnp.where(model.spread > 0, of_spread, 0)
    return of_cues + entropy_and_positions + ridge.sum() / 2 + spread.sum()


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision="highest")


CLOSED_FORMS: Mapping[str, Callable] = {
    "log_weights": log_weights,
    "centers": centers,
    "position_precision": position_precision,
    "coefficients": coefficients,
    "noise_precision": noise_precision,
    "piece": piece,
    "elbo": elbo,
}
