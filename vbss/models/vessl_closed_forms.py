"""Hand-derived updates of VESSL: no array has frames and pieces, and none is larger than the cues.

Frames enter through N_fm = sum_t q_ft(m) and F_cfm = sum_t q_ft(m) y_cft alone, pieces through the first two moments of
the predicted cues. Equation numbers are those of the paper's lost equations as derived anew: (1), (2) the positions,
(3) the labels, (4) the points.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vbss.expectation import Observations
from vbss.models.affine_pieces import (
    AffinePieces,
    PiecewisePosterior,
    expected_cues,
    half_log_determinant,
    inverse,
    position_posterior,
)
from vbss.posteriors import Posterior
from vbss.triangular import cholesky, solve_lower, solve_upper


class Moments(NamedTuple):
    """Of the bins of each source.

    Attributes:
        counts: N, (M, C, F); 0 for cues that there are not.
        sums: F, (M, C, F).
        squares: sum_mt q y^2, (C, F).
    """

    counts: Array
    sums: Array
    squares: Array


class Prediction(NamedTuple):
    """What the positions' posterior expects of the cues, (M, C, F).

    Attributes:
        mean: e.
        square: u, of the second moment.
    """

    mean: Array
    square: Array


def spread(model: Any, of_cues: Float[Array, "*b d"]) -> Float[Array, "*b c f"]:
    """From the cues that there are to all, with zeros for the others."""
    every = jnp.zeros((*of_cues.shape[:-1], model.is_cue.size), of_cues.dtype).at[..., model.places].set(of_cues)
    return every.reshape(*of_cues.shape[:-1], *model.is_cue.shape)


def _present(model: Any, of_all: Float[Array, "*b c f"]) -> Float[Array, "*b d"]:
    """The cues that there are."""
    return of_all.reshape(*of_all.shape[:-2], -1)[..., model.places]


def used(model: Any, is_observed: Bool[Array, "f t"]) -> Bool[Array, "f t"]:
    """Which labels have a bin that was observed."""
    return summed(model, is_observed.astype(model.pieces.maps.dtype)) > 0


def tying(model: Any, is_observed: Bool[Array, "f t"]) -> Array:
    """What a label that counts once adds to the density of its bins untied, at even mixing weights: at most zero."""
    dtype = model.pieces.maps.dtype
    untied = (is_observed.sum() - used(model, is_observed).sum()).astype(dtype)
    even = jnp.full((1, model.num_sources), -log(model.num_sources), dtype)
    return untied * log_class_probs(model, even).min()


def log_class_probs(model: Any, log_mixing_weights: Float[Array, "*b f m"]) -> Float[Array, "*b f j"]:
    """Of the sources, and of outliers if there are any."""
    if not model.has_outliers:
        return log_mixing_weights
    outlier = jnp.broadcast_to(jnp.log(model.outlier_probability), log_mixing_weights[..., :1].shape)
    return jnp.concatenate([log_mixing_weights + jnp.log1p(-model.outlier_probability), outlier], -1)


def piecewise(posterior: Posterior) -> PiecewisePosterior:
    """q(x, z)."""
    factor: Any = posterior.factors["position"]
    precision, linear = factor.natural["precision"], factor.natural["linear"]
    root = cholesky(precision)
    means = solve_upper(root, solve_lower(root, linear[..., None]))[..., 0]
    return PiecewisePosterior(jax.nn.log_softmax(factor.logits, -1), means, precision)


def predicted(model: Any, positions: PiecewisePosterior) -> Prediction:
    """e and u."""
    mean, square = expected_cues(model.pieces, positions)
    return Prediction(spread(model, mean), spread(model, square))


def _natural(posterior: Posterior) -> Float[Array, "f j t"]:
    return posterior.factors["source"].natural["onehot"]  # type: ignore[attr-defined]


def _label_probs(posterior: Posterior) -> tuple[Float[Array, "f j t"], Float[Array, "f t"]]:
    """q(w) and what normalises it, by one exponential: of all that a step computes, these cost most."""
    natural = _natural(posterior)
    highest = natural.max(1, keepdims=True)
    scaled = jnp.exp(natural - highest)
    total = scaled.sum(1, keepdims=True)
    return scaled / total, (highest + jnp.log(total))[:, 0]


def centred(model: Any, cues: Float[Array, "c f t"], is_observed: Bool[Array, "f t"] | None) -> Float[Array, "c f t"]:
    """Cues about their means, 0 where they were not observed (all bins were if that is None) or there are none."""
    is_there = model.is_cue[..., None]
    is_there = is_there if is_observed is None else is_observed[None] & is_there
    return jnp.where(is_there, cues - model.cue_means[..., None], 0)


def _observed_cues(model: Any, data: tuple, observations: Observations) -> Float[Array, "c f t"]:
    """`centred`, of an inference's observations if there are any: anew in each update, no two would share moments."""
    return observations["cues"]["value"] if observations else centred(model, *data)


def _moments(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Moments:
    probs = _label_probs(posterior)[0][:, : model.num_sources]
    # As numbers only where they are summed: the masks are as large as the data.
    of_bins = jnp.where(data[1][:, None], divided(model, probs), 0)
    cues = _observed_cues(model, data, observations)
    counts = jnp.where(model.is_cue[None], of_bins.sum(-1).T[:, None], 0)
    sums = _einsum("fmt,cft->mcf", of_bins, cues)
    squares = jnp.where(model.is_cue, (cues**2 * of_bins.sum(1)[None]).sum(-1), 0)
    return Moments(counts, sums, squares)


def position(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """(1), (2): the posterior of the map given what was counted."""
    moments = _moments(model, posterior, data, observations)
    precision = _present(model, posterior.points["noise_precision"])
    counts, sums = _present(model, moments.counts), _present(model, moments.sums)
    found = position_posterior(model.pieces, counts, sums, precision)
    linear = _einsum("mkij,mkj->mki", found.precisions, found.means)
    return {"logits": found.logits, "linear": linear, "precision": found.precisions}


def located(model: Any, posterior: Posterior, data: tuple, map_variance: Float[Array, " d"]) -> PiecewisePosterior:
    """As `position`, of a map that is itself wrong by so much: mean cues have the variance v + sigma^2 / N."""
    moments = _moments(model, posterior, data, {})
    precision = _present(model, posterior.points["noise_precision"])
    counts, sums = _present(model, moments.counts), _present(model, moments.sums)
    share = 1 / (1 + (map_variance * precision)[None] * counts)
    return position_posterior(model.pieces, share * counts, share * sums, precision)


def noise_precision(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """(4): 1 / sigma^2 = (n + n0) / (sum of squared residuals + n0 sigma0^2)."""
    moments, expected = _moments(model, posterior, data, observations), predicted(model, piecewise(posterior))
    residual = _residual(moments, expected)
    return (moments.counts.sum(0) + model.noise_count) / (residual + model.noise_count * model.noise_variance)


def _residual(moments: Moments, expected: Prediction) -> Float[Array, "c f"]:
    return moments.squares + (moments.counts * expected.square - 2 * moments.sums * expected.mean).sum(0)


def log_mixing_weights(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """(4): lambda = (labels of the source + a) / (labels of all sources + M a); as before where there are none."""
    probs = _label_probs(posterior)[0][:, : model.num_sources]
    counts = jnp.where(used(model, data[1])[:, None], probs, 0).sum(-1) + model.weight_count
    total = counts.sum(-1, keepdims=True)
    tiny = jnp.finfo(counts.dtype).tiny
    updated = jnp.log(jnp.maximum(counts / jnp.where(total > tiny, total, 1), tiny))
    return jnp.where(total > tiny, updated, posterior.points["log_mixing_weights"])


def source(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """(3), summed over the bins of each label."""
    expected, cues = predicted(model, piecewise(posterior)), _observed_cues(model, data, observations)
    fit = log_fits(model, expected, posterior.points["noise_precision"], cues, data[1])
    log_probs = log_class_probs(model, posterior.points["log_mixing_weights"])
    return {"onehot": jnp.where(used(model, data[1])[:, None], summed(model, fit) + log_probs[..., None], 0)}


def log_fits(
    model: Any,
    expected: Prediction,
    precision: Float[Array, "c f"],
    cues: Float[Array, "c f t"],
    is_observed: Bool[Array, "f t"] | None,
) -> Float[Array, "f j t"]:
    """sum_c E log N(y; prediction, sigma^2) under each class, less what it is for a source at the origin."""
    weights = jnp.where(model.is_cue, precision, 0)
    fit = _einsum("mcf,cft->fmt", weights[None] * expected.mean, cues)
    constant = (weights[None] * expected.square).sum(1).T / 2
    fit = fit - constant[..., None]
    if model.has_outliers:
        excess = jnp.where(model.is_cue, model.outlier_precision - precision, 0)
        ratio = jnp.where(model.is_cue, jnp.log(model.outlier_precision / precision), 0).sum(0)
        of_outlier = (ratio[:, None] - _einsum("cf,cft->ft", excess, cues**2)) / 2
        fit = jnp.concatenate([fit, of_outlier[:, None]], 1)
    return fit if is_observed is None else jnp.where(is_observed[:, None], fit, 0)


def released(model: Any, posterior: Posterior, labels: Int[Array, " f"], is_observed: Bool[Array, "f t"]) -> Posterior:
    """The posterior with each label divided; those that nothing is observed of are even, as after any update."""
    factor, weights = posterior.factors["source"], posterior.points["log_mixing_weights"]
    count = summed(model, jnp.ones_like(weights[:, :1]))
    is_place, count = count > 0, jnp.maximum(count, 1)
    natural = summed(model, jnp.take(_natural(posterior), labels, axis=0)) / count[..., None]
    natural = jnp.where(used(model, is_observed)[:, None], natural, 0)
    common = summed(model, jnp.take(weights, labels, axis=0)) / count
    divided = posterior.with_factor("source", factor.with_natural({"onehot": natural}))
    return divided.with_point("log_mixing_weights", jnp.where(is_place, common, weights))


def masks(model: Any, posterior: Posterior, cues: Float[Array, "c f t"]) -> Float[Array, "f t m"]:
    """The sources' shares of every bin, untied."""
    expected = predicted(model, piecewise(posterior))
    about_means = centred(model, cues, None)
    fit = log_fits(model, expected, posterior.points["noise_precision"], about_means, None)[:, : model.num_sources]
    weights = divided(model, posterior.points["log_mixing_weights"])
    return jnp.swapaxes(jax.nn.softmax(fit + weights[..., None], 1), 1, 2)


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """The bound from the moments that the updates need too."""
    moments, positions = _moments(model, posterior, data, observations), piecewise(posterior)
    precision, weights = posterior.points["noise_precision"], posterior.points["log_mixing_weights"]
    counts = moments.counts.sum(0)
    residual = _residual(moments, predicted(model, positions))
    total = (counts * (jnp.log(precision) - log(2 * pi)) - precision * residual).sum() / 2
    is_used = used(model, data[1])
    probs, log_norm = _label_probs(posterior)
    entropy = (log_norm - (probs * _natural(posterior)).sum(1)).sum()
    labels = jnp.where(is_used[:, None], probs, 0).sum(-1)
    unused = (is_used.size - is_used.sum()).astype(entropy.dtype)
    total = total + entropy + (labels * log_class_probs(model, weights)).sum() - unused * log(model.num_classes)
    if model.has_outliers:
        squares = (_observed_cues(model, data, observations) ** 2).sum(-1) - moments.squares
        number = jnp.where(model.is_cue, data[1].sum(-1)[None].astype(counts.dtype) - counts, 0)
        outlier = model.outlier_precision
        total = total + (number * (jnp.log(outlier) - log(2 * pi)) - outlier * squares).sum() / 2
    of_noise = jnp.log(precision) - precision * model.noise_variance
    total = total + model.noise_count / 2 * of_noise.sum() + model.weight_count * weights.sum()
    return total + tying(model, data[1]) - _divergence(model.pieces, positions)


def _divergence(pieces: AffinePieces, positions: PiecewisePosterior) -> Array:
    """KL(q(x, z) | p(x, z)), summed over the sources."""
    probs, log_q = jax.nn.softmax(positions.logits, -1), jax.nn.log_softmax(positions.logits, -1)
    offset = positions.means - pieces.centers[None]
    second = inverse(positions.precisions) + offset[..., :, None] * offset[..., None, :]
    trace = _einsum("kij,mkij->mk", pieces.precisions, second) - offset.shape[-1]
    of_gaussians = (
        trace / 2 + half_log_determinant(positions.precisions) - half_log_determinant(pieces.precisions)[None]
    )
    return (probs * (log_q - pieces.log_weights[None] + of_gaussians)).sum()


def summed(model: Any, of_bins: Float[Array, "f *rest"]) -> Float[Array, "f *rest"]:
    """Summed over the bins of each label."""
    if model.labels is None:
        return of_bins
    return jax.ops.segment_sum(of_bins, model.labels, num_segments=of_bins.shape[0])


def divided(model: Any, of_labels: Float[Array, "f *rest"]) -> Float[Array, "f *rest"]:
    """Every bin has what its label has."""
    return of_labels if model.labels is None else jnp.take(of_labels, model.labels, axis=0)


def _einsum(operands: str, *arrays: Array) -> Array:
    return jnp.einsum(operands, *arrays, precision="highest")


CLOSED_FORMS: Mapping[str, Callable] = {
    "position": position,
    "noise_precision": noise_precision,
    "log_mixing_weights": log_mixing_weights,
    "source": source,
    "elbo": elbo,
}
