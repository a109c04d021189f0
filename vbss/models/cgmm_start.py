"""Starts of the LDA-style complex Gaussian mixture: masks and directions from fixed templates.

All use the scale-free likelihood (x^H G^-1 x)^-M |G|^-1 of a template, the maximum over each bin's power, so that the
start does not depend on the recording's level. Each returns {site: value} for `vbss.fit`, of the sources
(`vbss.models.noise_class` adds the noise). `is_observed`, boolean (F, T), leaves bins out.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.densities.exponential import loaded_scatter
from vbss.hermitian import inverse_and_log_determinant

_HISTOGRAM_STEPS = 20
_KERNEL = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)  # smooths it: a source's share spreads over neighbouring candidates
_MASK_STEPS = 5
_SEPARATION = 24  # peaks are at least a 24th of the circle (15 degrees) apart
_HISTOGRAM_FREQUENCIES = 256  # the histogram needs no more than about these of a long or wide recording
_HISTOGRAM_BINS, _FEWEST_HISTOGRAM_BINS = 2**16, 2**14
_HISTOGRAM_SIZE = 2**23  # bins times directions: beyond, fewer bins are taken, down to the fewest
_LEAST_SIMILARITY = 0.9  # of templates that can be alike: on a wide array those of adjacent candidates are strangers


@eqx.filter_jit
def peak_directions(
    model: Any, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
) -> Float[Array, "k d"]:
    """The largest peaks of the directions' histogram, one-hot.

    The histogram is the weights of a mixture with one fixed template for each candidate direction, fitted by EM;
    candidate directions are taken to be evenly spaced around a circle, in order. Neighbours of a peak, and of its
    mirror image, which a linear array cannot tell from it, are taken only when nothing else is left.
    """
    histogram = _direction_histogram(model, _observed(mixture, is_observed))
    num_directions = histogram.shape[0]
    neighbours = np.arange(num_directions)[:, None] + np.arange(len(_KERNEL))[None] - len(_KERNEL) // 2
    smooth = histogram[neighbours % num_directions] @ jnp.asarray(_KERNEL, histogram.dtype)
    penalties = _penalties(model.templates)

    def take(heights, _):
        peak = jnp.argmax(heights)
        # A scatter would do, but crashes XLA's compiler (jaxlib 0.10.2) where there are few directions.
        return jnp.where(jnp.arange(num_directions) == peak, -jnp.inf, heights - penalties[peak]), peak

    _, peaks = jax.lax.scan(take, smooth, length=model.num_sources)
    return jax.nn.one_hot(peaks, num_directions, dtype=histogram.dtype)


@eqx.filter_jit
def given_directions(
    model: Any,
    mixture: Complex[Array, "f t m"],
    direction: Float[Array, "k d"],
    is_observed: Bool[Array, "f t"] | None = None,
) -> dict[str, Array]:
    """Direction probabilities from elsewhere (the peaks of another transform), and the masks that they give."""
    return _from_directions(model, _observed(mixture, is_observed), direction)


@eqx.filter_jit
def direction_groups(
    model: Any, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
) -> dict[str, Array]:
    """Each class starts as an equal share of the circle: equations (19) and (20).

    The group of class k (from 0) is the directions k D / K <= d < (k + 1) D / K; each bin's power is at its optimum.
    """
    num_directions = model.templates.shape[1]
    group = jnp.arange(num_directions) * model.num_sources // num_directions
    onehot = jax.nn.one_hot(group, model.num_sources, dtype=model.templates.dtype).T
    return _from_directions(model, _observed(mixture, is_observed), onehot / onehot.sum(-1, keepdims=True))


@eqx.filter_jit
def given_masks(
    model: Any,
    mixture: Complex[Array, "f t m"],
    masks: Float[Array, "f t k"],
    is_observed: Bool[Array, "f t"] | None = None,
    *,
    are_apart: bool = False,
) -> dict[str, Array]:
    """Masks from elsewhere (a network, an oracle), with directions by the corrected equation (18).

    w_k = softmax over d of -sum_f [n_fk log|G_fd| + tr(G_fd^-1 R_fk)], R_fk = sum_t z_ftk x x^H / mean(x^H x / M).

    With `are_apart`, directions are those of `directions_apart`.
    """
    mixture = _observed(mixture, is_observed)
    weights = masks if is_observed is None else jnp.where(is_observed[..., None], masks, 0)
    fit = direction_fit(model, mixture, weights, mean_power(mixture, is_observed))
    if are_apart:
        power = (mixture.real**2 + mixture.imag**2).sum(-1)
        direction = directions_apart(model, fit, jnp.einsum("ft,ftk->k", power, weights))
    else:
        direction = jax.nn.softmax(fit, -1)
    return {**_from_directions(model, mixture, direction), "source": masks}


def mean_power(mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None) -> Float[Array, ""]:
    """lambda~ = mean(x^H x) / M of the observed bins, others being silent; 1 of silence."""
    power = mixture.real**2 + mixture.imag**2
    if is_observed is None:
        mean = power.mean()
    else:
        mean = jnp.where(is_observed[..., None], power, 0).sum() / (is_observed.sum() * power.shape[-1]).astype(
            power.dtype
        )
    return jnp.where(mean > 0, mean, 1)


def direction_fit(
    model: Any, mixture: Complex[Array, "f t m"], weights: Float[Array, "f t k"], power: Float[Array, ""]
) -> Float[Array, "k d"]:
    """omega, equation (14) with the power that it lacks: nats by which each direction fits the bins of each class.

    omega_kd = -sum_f [n_fk log|G_fd| + tr(G_fd^-1 R_fk)], R_fk = sum_t z_ftk x x^H / power.
    """
    precision, log_determinant = inverse_and_log_determinant(model.templates)
    scatters = jnp.einsum("ftp,ftk->fkp", loaded_scatter(mixture, model.loading[:, None]), weights) / power
    return -jnp.einsum("fk,fd->kd", weights.sum(1), log_determinant) - jnp.einsum("fdp,fkp->kd", precision, scatters)


def directions_apart(model: Any, fit: Float[Array, "k d"], energies: Float[Array, " k"]) -> Float[Array, "k d"]:
    """The best direction of each class, one-hot; of several that are close, the class of most energy has it.

    Close are neighbours, and those of a direction like it: its mirror image, of a linear array. Where masks hardly tell
    classes apart, all would be where the loudest source is, and EM would leave them there. The others take the best
    direction that is left.
    """
    num_directions, penalties = fit.shape[1], _penalties(model.templates)
    unlikely = 2 * (fit.max() - fit.min()) + 1  # no direction is worse, but those that were taken twice

    def take(fit: Array, number: Array) -> tuple[Array, Array]:
        place = jnp.argmax(fit[number])
        return fit - unlikely * penalties[place][None], place

    order = jnp.argsort(-energies)
    _, taken = jax.lax.scan(take, fit, order)
    return jax.nn.one_hot(taken[jnp.argsort(order)], num_directions, dtype=fit.dtype)


def bin_fit(model: Any, mixture: Complex[Array, "f t m"], direction: Float[Array, "k d"]) -> Float[Array, "f t k"]:
    """-M log(x^H G^-1 x) - log|G|: what each class's directions say of every bin, at the best power."""
    quadratic, log_determinant = _quadratics(model, mixture, direction)
    return jnp.swapaxes(-mixture.shape[-1] * jnp.log(quadratic) - log_determinant[..., None], 1, 2)


def _quadratics(
    model: Any, mixture: Array, direction: Float[Array, "k d"]
) -> tuple[Float[Array, "f k t"], Float[Array, "f k"]]:
    """x^H G^-1 x of every bin and log|G|, of the mean of each class's directions."""
    precision, log_determinant = inverse_and_log_determinant(model.templates)
    source_precision = jnp.einsum("kd,fdp->fkp", direction, precision)
    scatter = loaded_scatter(mixture, model.loading[:, None])
    quadratic = jnp.einsum("ftp,fkp->fkt", scatter, source_precision)
    # Of silence in a model without loading, 1.
    return jnp.where(quadratic > 0, quadratic, 1), jnp.einsum("kd,fd->fk", direction, log_determinant)


def _observed(mixture: Array, is_observed: Array | None) -> Array:
    """The mixture with silence in the bins that were not observed."""
    return mixture if is_observed is None else jnp.where(is_observed[..., None], mixture, 0)


def _from_directions(model: Any, mixture: Array, direction: Float[Array, "k d"]) -> dict[str, Array]:
    """Masks under fixed direction probabilities, with time-varying weights, and the powers to match.

    A silent bin says nothing: its masks are the frame's weights.
    """
    size = mixture.shape[-1]
    quadratic, source_log_determinant = _quadratics(model, mixture, direction)
    is_audible = jnp.any(mixture != 0, -1)[:, None, :]
    fit = jnp.where(is_audible, -size * jnp.log(quadratic) - source_log_determinant[..., None], 0)
    audible = is_audible.astype(fit.dtype)
    smallest = jnp.finfo(fit.dtype).tiny

    def step(log_weights, _):
        counts = (jax.nn.softmax(fit + log_weights[None], 1) * audible).sum(0)
        total = counts.sum(0, keepdims=True)
        weights = jnp.log(jnp.maximum(counts / jnp.maximum(total, smallest), smallest))
        return jnp.where(total > 0, weights, log_weights), None

    start = jnp.full(fit.shape[1:], -jnp.log(fit.shape[1]), fit.dtype)
    log_weights, _ = jax.lax.scan(step, start, length=_MASK_STEPS)
    masks = jax.nn.softmax(fit + log_weights[None], 1)
    # H starts at its prior's mode, (nu - M) / (nu + M) times the template.
    gauge = (model.degrees_of_freedom + size) / (model.degrees_of_freedom - size)
    return {"source": jnp.swapaxes(masks, 1, 2), "direction": direction, "power": quadratic * gauge / size}


def _penalties(templates: Float[Array, "f d p"]) -> Float[Array, "d d"]:
    """What a peak in one direction takes off all others: 2 from its neighbours, 1 from those of directions like it.

    Alike are directions whose templates differ less than those of adjacent candidates: mirrored on a linear array.
    """
    num_directions = templates.shape[1]
    offset = jnp.abs(jnp.arange(num_directions)[:, None] - jnp.arange(num_directions)[None])
    distance = jnp.minimum(offset, num_directions - offset)
    near = (distance * _SEPARATION < num_directions).astype(templates.dtype)
    products = jnp.einsum("fdp,fep->de", templates, templates, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sqrt(jnp.diagonal(products))
    similarity = products / (norms[:, None] * norms[None])
    adjacent = jnp.where(distance == 1, similarity, 1).min(1, keepdims=True)
    alike = ((similarity >= jnp.maximum(adjacent, _LEAST_SIMILARITY)) | (distance == 0)).astype(templates.dtype)
    return near + jnp.minimum(alike @ near, 1)


def _direction_histogram(model: Any, mixture: Array) -> Float[Array, " d"]:
    """Weights of the mixture of all directions' templates, by EM on a regular part of a large recording's bins.

    Templates are fixed, so what each says of each bin is computed once, and a step is two products. Only ratios of a
    bin's likelihoods matter; weights below the smallest number are as good as none.
    """
    size, num_directions = mixture.shape[-1], model.templates.shape[1]
    every = max(1, mixture.shape[0] // _HISTOGRAM_FREQUENCIES)
    templates, loadings, mixture = model.templates[::every], model.loading[::every], mixture[::every]
    largest = max(_FEWEST_HISTOGRAM_BINS, min(_HISTOGRAM_BINS, _HISTOGRAM_SIZE // num_directions))
    mixture = mixture[:, :: -(-mixture.shape[0] * mixture.shape[1] // largest)]
    precision, log_determinant = inverse_and_log_determinant(templates)
    scatter = loaded_scatter(mixture, loadings[:, None])
    audible = jnp.any(mixture != 0, -1).astype(scatter.dtype)
    quadratic = jnp.einsum("ftp,fdp->ftd", scatter, precision)
    quadratic = jnp.where(quadratic > 0, quadratic, 1)  # silence in a model without loading
    volume = jnp.exp(log_determinant.min(-1, keepdims=True) - log_determinant)
    likelihood = (quadratic.min(-1, keepdims=True) / quadratic) ** size * volume[:, None]
    smallest = jnp.finfo(likelihood.dtype).tiny

    def step(weights, _):
        evidence = jnp.einsum("ftd,d->ft", likelihood, weights)
        counts = weights * jnp.einsum("ftd,ft->d", likelihood, audible / jnp.maximum(evidence, smallest))
        return jnp.maximum(counts / jnp.maximum(counts.sum(), smallest), smallest), None

    start = jnp.full(num_directions, 1 / num_directions, templates.dtype)
    return jax.lax.scan(step, start, length=_HISTOGRAM_STEPS)[0]
