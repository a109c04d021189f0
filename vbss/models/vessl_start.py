"""Starts of VESSL: which pieces of the map together explain the most bins, and the labels that they give."""

from math import log
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vbss.models import vessl_closed_forms

_POINTS = 4000  # bins that the search looks at, drawn at random among those observed
_FREEDOM = 4.0  # of Student's t, for bins that none of the centres explains
_TOGETHER = 5  # of them, whose explanations are multiplied: above the smallest number of float32 for the floor below
_BESIDE = 1.5  # distances between neighbouring pieces (root mean square)
_FLOOR = 1e-6  # what a bin is worth at least, of its best piece
_SCALES = 4.0  # standard deviations of the prior of the noise: of a single frame about a piece's centre
_SHRINKAGE = 0.25  # of the cues' second moment: where the noise starts


@eqx.filter_jit
def best_centers(
    model: Any,
    cues: Float[Array, "c f t"],
    is_observed: Bool[Array, "f t"],
    *,
    key: Array,
    num_candidates: int = 4,
) -> Int[Array, "candidates m"]:
    """The sets of M pieces whose centres explain the most bins, the best first.

    Every piece explains a bin as well as its centre's cues do, of the piece that does best; a set's score is the sum
    over the bins of the logarithm of its members' mean. Pairs are searched completely; further sources are added to
    the best pairs one by one, and then each is exchanged for a better one.
    """
    explained = _explained(model, cues, is_observed, key)
    num_pieces = explained.shape[1]
    if model.num_sources == 1:
        _, best = jax.lax.top_k(_score(explained), min(num_candidates, num_pieces))
        return best[:, None]

    def with_each(taken: Array) -> Array:
        """Scores of a set (its summed explanations) with each piece added."""
        return _score(taken[:, None] + explained)

    scores = jax.lax.map(with_each, explained.T)
    sets = _different_pairs(scores, model.pieces.centers, num_candidates)
    for _ in range(model.num_sources - 2):
        more = jax.lax.map(lambda chosen: with_each(explained[:, chosen].sum(1)).argmax(), sets)
        sets = jnp.concatenate([sets, more[:, None].astype(sets.dtype)], -1)
    if model.num_sources == 2:
        return sets

    def exchanged(chosen: Array) -> Array:
        for place in [*range(model.num_sources)] * 2:
            others = explained[:, chosen].sum(1) - explained[:, chosen[place]]
            chosen = chosen.at[place].set(with_each(others).argmax().astype(chosen.dtype))
        return chosen

    return jax.lax.map(exchanged, sets)


def _score(explained: Float[Array, "points k"]) -> Float[Array, " k"]:
    """Summed logarithms, one for the product of a few points: these cost more than all else of the search."""
    grouped = (explained + _FLOOR).reshape(_TOGETHER, -1, explained.shape[1])
    return jnp.log(grouped.prod(0)).sum(0)


def _different_pairs(
    scores: Float[Array, "k k"], centers: Float[Array, "k l"], num_candidates: int
) -> Int[Array, "candidates 2"]:
    """The best pairs, none of which has both pieces beside those of a better one."""
    num_pieces = len(centers)
    apart = ((centers[:, None] - centers[None]) ** 2).sum(-1)
    nearest = jnp.where(jnp.eye(num_pieces, dtype=bool), jnp.inf, apart).min(-1)
    is_beside = apart <= _BESIDE**2 * nearest.mean()
    left = different = jnp.where(jnp.asarray(np.triu(np.ones((num_pieces, num_pieces), bool), 1)), scores, -jnp.inf)
    pairs = []
    for _ in range(min(num_candidates, num_pieces * (num_pieces - 1) // 2)):
        # Where all others are beside the better ones, they are better than none.
        best = jnp.where(jnp.isfinite(different.max()), different, left).argmax()
        first, second = best // num_pieces, best % num_pieces
        pairs.append(jnp.stack([first, second]))
        is_taken = is_beside[first][:, None] & is_beside[second][None]
        left = left.at[first, second].set(-jnp.inf)
        different = jnp.where(is_taken | is_taken.T, -jnp.inf, different)
    return jnp.stack(pairs)


def _explained(model: Any, cues: Array, is_observed: Array, key: Array) -> Float[Array, "points k"]:
    """How well the centre of each piece explains some of the observed bins, of the best one."""
    num_points = min(_POINTS, is_observed.size)
    order = jnp.where(is_observed, jax.random.uniform(key, is_observed.shape), -1).reshape(-1)
    drawn, index = jax.lax.top_k(order, num_points)
    frequency = index // is_observed.shape[1]
    values = vessl_closed_forms.centred(model, cues, None).reshape(len(cues), -1)[:, index]
    scale = _SCALES * jnp.sqrt(model.noise_variance)
    weight = jnp.where(model.is_cue, 1 / scale, 0)[:, frequency]

    def misfit(of_piece: Float[Array, "c f"]) -> Array:
        deviation = weight * (values - of_piece[:, frequency])
        return -(_FREEDOM + 1) / 2 * jnp.log1p(deviation**2 / _FREEDOM).sum(0)

    centers = vessl_closed_forms.spread(model, model.pieces.maps[..., -1].T)
    fit = jax.lax.map(misfit, centers)
    explained = jnp.exp(fit - fit.max(0, keepdims=True)).T
    explained = jnp.where((drawn >= 0)[:, None], explained, 1)
    return jnp.pad(explained, ((0, -num_points % _TOGETHER), (0, 0)), constant_values=1)


@eqx.filter_jit
def given_pieces(
    model: Any, cues: Float[Array, "c f t"], is_observed: Bool[Array, "f t"], pieces: Int[Array, " m"]
) -> dict[str, Array]:
    """Sources at the centres of pieces, noise in proportion to the cues' power, and the labels that both give."""
    centred = vessl_closed_forms.centred(model, cues, is_observed)
    count = jnp.where(model.is_cue, is_observed.sum(-1)[None].astype(cues.dtype), 0)
    prior = model.noise_count * model.noise_variance
    precision = (count + model.noise_count) / (_SHRINKAGE * (centred**2).sum(-1) + prior)
    at_centers = vessl_closed_forms.spread(model, model.pieces.maps[:, pieces, -1].T)
    expected = vessl_closed_forms.Prediction(at_centers, at_centers**2)
    fit = vessl_closed_forms.log_fits(model, expected, precision, centred, is_observed)
    even = jnp.full((centred.shape[1], model.num_sources), -log(model.num_sources), centred.dtype)
    log_probs = vessl_closed_forms.log_class_probs(model, even)
    probs = jax.nn.softmax(vessl_closed_forms.summed(model, fit) + log_probs[..., None], 1)
    return {"source": jnp.swapaxes(probs, 1, 2), "noise_precision": precision, "log_mixing_weights": even}
