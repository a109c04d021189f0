"""Hand-derived updates of MESSL, and the whole iteration of exact EM in one pass over the data.

Sums over frames are of deviations d = wrap(phase - omega tau) - xi and e = level - mu from the parameters as they are,
so that float32 resolves variances. They are by frequency; an update adds up the frequencies of a band, and what the
pseudo-observations add (`MESSL.log_prior`), of which each frequency has its own.

In the whole iteration (`em_step`) a few frequencies are taken at a time: no array has frequencies, frames and states.
Axes in what follows: f frequencies, t frames, c classes, k delays; the frames stand last.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.densities.wrapped import wrapped
from vbss.expectation import Observations
from vbss.models.bins import einsum
from vbss.models.by_frequency import mapped
from vbss.models.messl_start import LEVEL_VARIANCE
from vbss.posteriors import Posterior

Points = Mapping[str, Array]

_STATES_OF_A_BIN = 8  # as many states as take the memory that `by_frequency` counts for one bin


class _Rows(NamedTuple):
    """Of each frequency: data, zero where not observed, and parameters."""

    phase: Float[Array, "f t"]
    level: Float[Array, "f t"]
    is_observed: Bool[Array, "f t"]
    shift: Float[Array, "f k"]
    phase_loc: Float[Array, "f c k"]
    phase_variance: Float[Array, "f c k"]
    level_loc: Float[Array, "f c"]
    level_variance: Float[Array, "f c"]


class _Scores(NamedTuple):
    """Deviations of the observations from what each state expects, and their log densities."""

    phase_deviation: Float[Array, "f c k t"]
    level_deviation: Float[Array, "f c t"]
    phase: Float[Array, "f c k t"]
    level: Float[Array, "f c t"]


class _Sums(NamedTuple):
    """Over the observed frames: how many belong to each state or class, their deviations, and the squares of those."""

    count: Float[Array, "f c k"]
    linear: Float[Array, "f c k"]
    square: Float[Array, "f c k"]
    level_count: Float[Array, "f c"]
    level_linear: Float[Array, "f c"]
    level_square: Float[Array, "f c"]


def _rows(model: Any, points: Points, data: tuple) -> _Rows:
    phase, level, *rest = data
    is_observed = rest[0] if rest and rest[0] is not None else jnp.ones(phase.shape, bool)
    return _Rows(
        jnp.where(is_observed, phase, 0),
        jnp.where(is_observed, level, 0),
        is_observed,
        model.shift(phase.dtype),
        *_of_frequencies(model, points),
    )


def _of_frequencies(model: Any, points: Points) -> tuple[Array, Array, Array, Array]:
    """xi and sigma^2 (f c k), mu and eta^2 (f c), each frequency's own."""
    phase, level = ("phase_loc", "phase_variance"), ("level_loc", "level_variance")
    return *(points[n][model.bands] for n in phase), *(points[n][model.level_bands] for n in level)  # type: ignore


def _scores(rows: _Rows, log_weights: Float[Array, "c k"] | None = None) -> _Scores:
    """With log weights, the score of phases has them added."""
    residual = wrapped(rows.phase[:, None] - rows.shift[:, :, None])
    phase_deviation = residual[:, None] - rows.phase_loc[..., None]
    level_deviation = rows.level[:, None] - rows.level_loc[..., None]
    constant = -(jnp.log(rows.phase_variance) + log(2 * pi)) / 2
    if log_weights is not None:
        constant = constant + log_weights[None]
    phase = constant[..., None] - (0.5 / rows.phase_variance)[..., None] * phase_deviation**2
    level_constant = -(jnp.log(rows.level_variance) + log(2 * pi)) / 2
    level = level_constant[..., None] - (0.5 / rows.level_variance)[..., None] * level_deviation**2
    return _Scores(phase_deviation, level_deviation, phase, level)


def _sums(
    scores: _Scores,
    weights: Float[Array, "f c k t"],
    scale: Float[Array, "f t"],
    class_weights: Float[Array, "f c t"],
) -> _Sums:
    """Of states whose probabilities are weights times scale, scale being zero where nothing was observed.

    Args:
        class_weights: the probabilities of classes, zero likewise.
    """
    deviation, level_deviation = scores.phase_deviation, scores.level_deviation
    weighted = class_weights * level_deviation
    return _Sums(
        einsum("fckt,ft->fck", weights, scale),
        einsum("fckt,ft->fck", weights * deviation, scale),
        einsum("fckt,ft->fck", weights * deviation * deviation, scale),
        class_weights.sum(-1),
        weighted.sum(-1),
        (weighted * level_deviation).sum(-1),
    )


def _expected(rows: _Rows, log_weights: Float[Array, "c k"]) -> tuple[Array, Array, _Sums]:
    """The E-step of a few frequencies: masks (f c t), the log evidence (f), and the sums."""
    scores = _scores(rows, log_weights)
    largest = (scores.phase.max(2) + scores.level).max(1)
    weights = jnp.exp(scores.phase + (scores.level - largest[:, None])[:, :, None])
    class_weights = weights.sum(2)
    total = class_weights.sum(1)
    # Of bins that were not observed the prior is all that is known; the sums have none of them.
    scale = jnp.where(rows.is_observed, 1 / total, 0)
    masks = class_weights * scale[:, None]
    evidence = jnp.where(rows.is_observed, largest + jnp.log(total), 0).sum(-1)
    known = jnp.where(rows.is_observed[:, None], masks, jnp.exp(log_weights).sum(-1)[None, :, None])
    return known, evidence, _sums(scores, weights, scale, masks)


def _mapped(function: Callable, rows: _Rows, num_states: int) -> Any:
    return mapped(function, rows, max(1, rows.phase.shape[1] * num_states // _STATES_OF_A_BIN))


def _by_class(model: Any, points: Points) -> Float[Array, "c k"]:
    _, num_classes, num_delays = model.shape
    return points["log_weights"].reshape(num_classes, num_delays)


def em_step(model: Any, points: Points, data: tuple) -> tuple[dict[str, Array], Float[Array, ""]]:
    """One iteration of exact EM: the points after it, and the bound (the log evidence and the prior) before it.

    The same as a sweep of `vbss.EM` over the model's blocks. A pure function, to be compiled by its caller.

    Args:
        data: the program's arguments.
    """
    rows, log_weights = _rows(model, points, data), _by_class(model, points)
    evidence, sums = _mapped(lambda rows: _expected(rows, log_weights)[1:], rows, log_weights.size)
    num_missing = (~rows.is_observed).sum().astype(evidence.dtype)
    counts = sums.count.sum(0) + num_missing * jnp.exp(log_weights)
    after = {"log_weights": _log_weights(counts.reshape(-1))}
    after["phase_loc"] = _phase_loc(model, points, sums)
    after["phase_variance"] = _phase_variance(model, points, sums, after["phase_loc"])
    after["level_loc"] = _level_loc(model, points, sums)
    after["level_variance"] = _level_variance(model, points, sums, after["level_loc"])
    return after, evidence.sum() + _log_prior(model, points)


def masks_and_bound(model: Any, points: Points, data: tuple) -> tuple[Float[Array, "f t c"], Float[Array, ""]]:
    """The probability of each class in every bin, and the bound (the log evidence and the prior)."""
    rows, log_weights = _rows(model, points, data), _by_class(model, points)
    known, evidence = _mapped(lambda rows: _expected(rows, log_weights)[:2], rows, log_weights.size)
    return jnp.swapaxes(known, 1, 2), evidence.sum() + _log_prior(model, points)


def masks(model: Any, points: Points, data: tuple) -> Float[Array, "f t c"]:
    """The probability of each class in every bin; where nothing was observed, the weights of the classes."""
    return masks_and_bound(model, points, data)[0]


def _log_weights(counts: Float[Array, " j"]) -> Float[Array, " j"]:
    smallest = jnp.finfo(counts.dtype).tiny
    return jnp.log(jnp.maximum(counts / counts.sum(), smallest))


def _log_prior(model: Any, points: Points) -> Float[Array, ""]:
    return model.log_prior(*_of_frequencies(model, points))


def _pooled(bands: Array, values: Float[Array, "f *rest"]) -> Float[Array, "f *rest"]:
    """Sums over the frequencies of each slot."""
    return jax.ops.segment_sum(values, bands, num_segments=len(bands))


def _quotient(numerator: Array, denominator: Array, unused: Array) -> Array:
    """Of slots; those of no frequency have `unused`."""
    is_used = denominator > 0
    return jnp.where(is_used, numerator / jnp.where(is_used, denominator, 1), unused)


def _phase_loc(model: Any, points: Points, sums: _Sums) -> Float[Array, "f c k"]:
    """xi' = (n_0 0 + sum_ft nu r) / (n_0 + sum_ft nu), as a step from xi."""
    before, weight = points["phase_loc"], model.pseudo_count.astype(sums.count.dtype)
    step = _pooled(model.bands, sums.linear - weight * before[model.bands])
    return before + _quotient(step, _pooled(model.bands, sums.count + weight), jnp.zeros_like(before))


def _phase_variance(model: Any, points: Points, sums: _Sums, loc: Float[Array, "f c k"]) -> Float[Array, "f c k"]:
    """sigma^2' = (n_0 (xi'^2 + 1) + sum_ft nu (r - xi')^2) / (n_0 + sum_ft nu), for a given xi' of the slots."""
    weight = model.pseudo_count.astype(sums.count.dtype)
    moved = (points["phase_loc"] - loc)[model.bands]
    square = _moved_square(sums.square, sums.linear, sums.count, moved)
    square = _pooled(model.bands, square + weight * (loc[model.bands] ** 2 + 1))
    return _quotient(square, _pooled(model.bands, sums.count + weight), points["phase_variance"])


def _level_loc(model: Any, points: Points, sums: _Sums) -> Float[Array, "f c"]:
    """mu' = (n_0 0 + kappa mu_0 + sum_ft m y) / (n_0 + kappa + sum_ft m), as a step from mu."""
    before, bands = points["level_loc"], model.level_bands
    weight, kappa, mean = _level_prior(model, before.dtype)
    old = before[bands]
    step = _pooled(bands, sums.level_linear + kappa * (mean - old) - weight * old)
    return before + _quotient(step, _pooled(bands, sums.level_count + kappa + weight), jnp.zeros_like(before))


def _level_variance(model: Any, points: Points, sums: _Sums, loc: Float[Array, "f c"]) -> Float[Array, "f c"]:
    """eta^2' = (n_0 (mu'^2 + 100) + kappa (mu_0 - mu')^2 + sum_ft m (y - mu')^2) / (n_0 + kappa + sum_ft m)."""
    bands = model.level_bands
    weight, kappa, mean = _level_prior(model, loc.dtype)
    new = loc[bands]
    moved = points["level_loc"][bands] - new
    square = _moved_square(sums.level_square, sums.level_linear, sums.level_count, moved)
    square = _pooled(bands, square + kappa * (mean - new) ** 2 + weight * (new**2 + LEVEL_VARIANCE))
    return _quotient(square, _pooled(bands, sums.level_count + kappa + weight), points["level_variance"])


def _moved_square(square: Array, linear: Array, count: Array, moved: Array) -> Array:
    """sum nu (d + moved)^2, not below zero for rounding."""
    return jnp.maximum(square + 2 * moved * linear + moved**2 * count, 0)


def _level_prior(model: Any, dtype: Any) -> tuple[Array, Array, Array]:
    """n_0, kappa and mu_0."""
    fields = model.pseudo_count, model.level_prior_count, model.level_prior_mean
    return tuple(field.astype(dtype) for field in fields)  # type: ignore[return-value]


# What follows is asked for block by block, with the whole array of probabilities.


def _log_probs(model: Any, posterior: Posterior) -> Float[Array, "f c k t"]:
    logits = posterior.factors["label"].natural["onehot"]  # type: ignore[attr-defined]
    log_probs = jnp.moveaxis(jax.nn.log_softmax(logits, -1), -1, 1)
    num_frequencies, _, num_frames = log_probs.shape
    return log_probs.reshape(num_frequencies, *model.shape[1:], num_frames)


def _label_block(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """log nu = log psi + log N(r; xi, sigma^2) + log N(y; mu, eta^2); log psi where nothing was observed."""
    rows, log_weights = _rows(model, posterior.points, data), posterior.points["log_weights"]
    scores = _scores(rows)
    fit = jnp.where(rows.is_observed[:, None, None], scores.phase + scores.level[:, :, None], 0)
    by_state = jnp.moveaxis(fit.reshape(len(fit), log_weights.size, -1), 1, -1)
    return {"onehot": log_weights[None, None] + by_state}


def _log_weights_block(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    probs = jnp.exp(_log_probs(model, posterior))
    return _log_weights(probs.sum((0, -1)).reshape(-1))


def _from_sums(update: Callable) -> Callable:
    """The update of a point from the sums about the points as they are."""

    def block(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
        rows, probs = _rows(model, posterior.points, data), jnp.exp(_log_probs(model, posterior))
        scale = rows.is_observed.astype(probs.dtype)
        sums = _sums(_scores(rows), probs, scale, probs.sum(2) * scale[:, None])
        return update(model, posterior.points, sums)

    return block


def _elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Float[Array, ""]:
    """The bound at any probabilities of states, no constant dropped."""
    rows, log_probs = _rows(model, posterior.points, data), _log_probs(model, posterior)
    scores = _scores(rows)
    fit = jnp.where(rows.is_observed[:, None, None], scores.phase + scores.level[:, :, None], 0)
    log_weights = _by_class(model, posterior.points)[None, :, :, None]
    return (jnp.exp(log_probs) * (log_weights + fit - log_probs)).sum() + _log_prior(model, posterior.points)


CLOSED_FORMS: Mapping[str, Callable] = {
    "label": _label_block,
    "log_weights": _log_weights_block,
    "phase_loc": _from_sums(_phase_loc),
    "phase_variance": _from_sums(lambda model, points, sums: _phase_variance(model, points, sums, points["phase_loc"])),
    "level_loc": _from_sums(_level_loc),
    "level_variance": _from_sums(lambda model, points, sums: _level_variance(model, points, sums, points["level_loc"])),
    "elbo": _elbo,
}
