"""Hand-derived updates of the local Gaussian model with jointly diagonal covariances, all scalar: channel by channel.

With y_m = q_m x and its power d_m = sum_k g_km v_k, the variances' fit is sum_m g_km |y_m|^2 / d_m^2, their cost
sum_m g_km / d_m. Powers are of bins scaled to a mean power of one, so that no number leaves the range of float32. The
loading adds to x x^H what `vbss.ComplexNormal` says.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from math import log, pi
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.additive import improved_scalars
from vbss.demixing import improved_rows, log_squared_determinants
from vbss.expectation import Observations
from vbss.hermitian import packed_identity
from vbss.models.bin_parts import mean_powers, real_parts, scatter_entries
from vbss.models.bins import einsum, heard
from vbss.models.by_frequency import mapped, summed
from vbss.models.local_gaussian_nmf_layout import variances
from vbss.models.nmf_closed_forms import updates_of_variances
from vbss.posteriors import Posterior


class Rows(NamedTuple):
    """What there is of each frequency: the data, and the unknowns but for the activations, which all share.

    Attributes:
        parts: of x (`vbss.models.bin_parts`).
        is_heard: which bins count.
        demixing: Q.
        gains: g.
        spectra: T.
    """

    parts: list[Float[Array, "f n"]]
    is_heard: Bool[Array, "f n"]
    demixing: Float[Array, "f m r"]
    gains: Float[Array, "f k m"]
    spectra: Float[Array, "f c"]


def rows(posterior: Posterior, data: tuple) -> Rows:
    """Of data and posterior."""
    points, is_heard = posterior.points, heard(*data)
    unknowns = (points[name] for name in ("demixing", "gains", "spectra"))
    return Rows(real_parts(data[0], is_heard), is_heard, *unknowns)


class Weighed(NamedTuple):
    """What the updates need of the bins, at the present values of all unknowns; lists are of one entry a channel.

    Attributes:
        level: |x|^2 / M, 1 in bins that do not count.
        variance: v / level.
        powers: d / level.
        filtered_real, filtered_imaginary: y, 0 in bins that do not count.
        fits: |y|^2 / d with the loading's, 0 in bins that do not count.
    """

    level: Float[Array, "f n"]
    variance: Float[Array, "k f n"]
    powers: list[Float[Array, "f n"]]
    filtered_real: list[Float[Array, "f n"]]
    filtered_imaginary: list[Float[Array, "f n"]]
    fits: list[Float[Array, "f n"]]


def weighed(model: Any, rows: Rows, activations: Float[Array, "c n"]) -> Weighed:
    """The one pass over the bins that every update and the bound begin with."""
    size = rows.demixing.shape[-2]
    level = mean_powers(rows.parts, rows.is_heard)
    variance = variances(model, rows.spectra, activations) / level[None]
    stacked = jnp.maximum(einsum("fkm,kfn->fmn", rows.gains, variance), jnp.finfo(level.dtype).tiny)
    powers = [stacked[:, m] for m in range(size)]
    loading = model.loading.astype(level.dtype)
    filtered: tuple[list[Array], list[Array]] = [], []
    fits = []
    for m, power in enumerate(powers):
        row = rows.demixing[:, m, :, None]
        terms = [
            (row[:, i] * x - row[:, i + size] * y, row[:, i] * y + row[:, i + size] * x)
            for i, (x, y) in enumerate(zip(rows.parts[:size], rows.parts[size:], strict=True))
        ]
        real, imaginary = (
            jnp.where(rows.is_heard, reduce(jnp.add, of_channel), 0) for of_channel in zip(*terms, strict=True)
        )
        energy = (real * real + imaginary * imaginary) / level + loading * (row * row).sum(1)
        filtered[0].append(real)
        filtered[1].append(imaginary)
        fits.append(jnp.where(rows.is_heard, energy / (1 + loading) / power, 0))
    return Weighed(level, variance, powers, *filtered, fits)


def _of_channels(rows: Rows, found: Weighed) -> tuple[list[Float[Array, "f n"]], list[Float[Array, "f n"]]]:
    """Fit |y|^2 / d^2 and cost 1 / d, of scaled bins."""
    fits = [fit / power for fit, power in zip(found.fits, found.powers, strict=True)]
    return fits, [jnp.where(rows.is_heard, 1 / power, 0) for power in found.powers]


def _of_variances(
    model: Any, rows: Rows, activations: Float[Array, "c n"]
) -> tuple[list[Float[Array, "f n"]], list[Float[Array, "f n"]]]:
    """Fit and cost of v, class by class."""
    found = weighed(model, rows, activations)

    def summed_up(channels: list[Array]) -> list[Array]:
        return [
            reduce(jnp.add, (rows.gains[:, k, m, None] * channel for m, channel in enumerate(channels))) / found.level
            for k in range(rows.gains.shape[1])
        ]

    fit, cost = _of_channels(rows, found)
    return summed_up(fit), summed_up(cost)


def gains(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """g <- g (sum_n v |y|^2 / d^2 / sum_n v / d)^(1/2)."""
    activations = posterior.points["activations"]

    def improved(rows: Rows) -> Array:
        found = weighed(model, rows, activations)
        variance = jnp.swapaxes(found.variance, 0, 1)
        fit, cost = (
            jnp.stack([einsum("fn,fkn->fk", channel, variance) for channel in channels], 2)
            for channels in _of_channels(rows, found)
        )
        return improved_scalars(rows.gains, fit, cost)

    return mapped(improved, rows(posterior, data), activations.shape[1])


def demixing(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """One sweep of iterative projection with A_m = sum_n x x^H / d_m and the loading's."""
    activations = posterior.points["activations"]

    def improved(rows: Rows) -> Array:
        found = weighed(model, rows, activations)
        weights = jnp.stack([jnp.where(rows.is_heard, 1 / power, 0) / found.level for power in found.powers], 1)
        scatter = jnp.stack([einsum("fmn,fn->fm", weights, entry) for entry in scatter_entries(rows.parts)], 2)
        loading = model.loading.astype(scatter.dtype)
        white = loading * scatter[..., : weights.shape[1]].mean(-1, keepdims=True)
        identity = packed_identity(weights.shape[1], scatter.dtype).reshape(1, 1, -1)
        scatter = (scatter + white * identity) / (1 + loading)
        count = rows.is_heard.sum(1).astype(scatter.dtype)
        return improved_rows(rows.demixing, count, scatter)

    return mapped(improved, rows(posterior, data), activations.shape[1])


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """log p: nothing is latent."""
    activations, size = posterior.points["activations"], data[0].shape[-1]

    def of(rows: Rows) -> Array:
        found = weighed(model, rows, activations)
        channels = (fit + jnp.log(power) for fit, power in zip(found.fits, found.powers, strict=True))
        misfit = reduce(jnp.add, channels) + size * (jnp.log(found.level) + log(pi))
        log_determinants = log_squared_determinants(rows.demixing)
        gain = rows.is_heard.sum(1).astype(log_determinants.dtype) * log_determinants
        return gain.sum() - jnp.where(rows.is_heard, misfit, 0).sum()

    return summed(of, rows(posterior, data), activations.shape[1])


CLOSED_FORMS: Mapping[str, Callable] = {
    "gains": gains,
    "demixing": demixing,
    "elbo": elbo,
    **updates_of_variances(rows, _of_variances),
}
