"""Hand-derived updates of the local Gaussian model, bin by bin in packed real arithmetic.

Every update weighs how well the sources' covariances fit the bins, y y^H with y = S^-1 x, against what they cost, S^-1
(`vbss.additive`). S and y are of bins scaled to a mean power of one, so that no number leaves the range of float32;
frames are the last axis. Bins that do not count have neither fit nor cost. A few frequencies at a time are weighed
(`vbss.models.by_frequency`).
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from math import log, pi, sqrt
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vbss.additive import improved_matrices, improved_scalars
from vbss.expectation import Observations
from vbss.hermitian import inverse_entries
from vbss.models.bins import heard
from vbss.models.by_frequency import mapped, summed
from vbss.models.local_gaussian_nmf_layout import groups, loaded, variances
from vbss.posteriors import Posterior

_einsum = partial(jnp.einsum, precision="highest")  # a GPU's default mantissa does not survive the inversions


class Rows(NamedTuple):
    """What there is of each frequency: the data, and the unknowns but for the activations, which all share.

    Attributes:
        parts: M real, then M imaginary parts of x, 0 in bins that do not count; each an array by itself, as loops over
            arrays of one shape are the fastest.
        is_heard: which bins count.
        covariance: packed R.
        spectra: T.
    """

    parts: list[Float[Array, "f n"]]
    is_heard: Bool[Array, "f n"]
    covariance: Float[Array, "f k p"]
    spectra: Float[Array, "f c"]


def rows(posterior: Posterior, data: tuple) -> Rows:
    """Of data and posterior."""
    points, mixture, is_heard = posterior.points, data[0], heard(*data)
    both = [array[..., m] for array in (mixture.real, mixture.imag) for m in range(mixture.shape[-1])]
    parts = [jnp.where(is_heard, part, 0) for part in both]
    return Rows(parts, is_heard, points["spatial_covariance"], points["spectra"])


class Weighed(NamedTuple):
    """What the updates need of the bins, at the present values of all unknowns.

    Entries are lists of arrays, which the compiler computes in one loop with what is made of them; stacked, they would
    go through memory.

    Attributes:
        level: |x|^2 / M, 1 in bins that do not count.
        covariance: packed R with its loading.
        variance: v / level.
        inverse_entries: those of the packed inverse of S / level, 0 in bins that do not count.
        log_determinant: of S / level.
        filtered_entries: M real, then M imaginary parts of y = S^-1 x of the scaled bins.
        misfit: y^H x of the scaled bins.
    """

    level: Float[Array, "f n"]
    covariance: Float[Array, "f k p"]
    variance: Float[Array, "k f n"]
    inverse_entries: list[Float[Array, "f n"]]
    log_determinant: Float[Array, "f n"]
    filtered_entries: list[Float[Array, "f n"]]
    misfit: Float[Array, "f n"]

    @property
    def inverse(self) -> Float[Array, "f p n"]:
        """Its entries as one array."""
        return jnp.stack(self.inverse_entries, 1)

    @property
    def filtered(self) -> Float[Array, "f r n"]:
        """Its entries as one array."""
        return jnp.stack(self.filtered_entries, 1)


def weighed(model: Any, rows: Rows, activations: Float[Array, "c n"]) -> Weighed:
    """The one pass over the bins that every update and the bound begin with."""
    parts, is_heard = rows.parts, rows.is_heard
    level = jnp.where(is_heard, reduce(jnp.add, (part * part for part in parts)) / (len(parts) // 2), 1)
    covariance = loaded(rows.covariance, model.loading)
    variance = variances(model, rows.spectra, activations) / level[None]
    total = _einsum("fkp,kfn->fpn", covariance, variance)
    inverse, log_determinant = inverse_entries([total[:, p] for p in range(total.shape[1])])
    inverse = [jnp.where(is_heard, entry, 0) for entry in inverse]
    # A division, as the compiler keeps what it gives but computes a product again wherever it is used.
    root = jnp.sqrt(level)
    filtered = [entry / root for entry in _product(inverse, parts)]
    misfit = reduce(jnp.add, (a * b for a, b in zip(parts, filtered, strict=True))) / root
    return Weighed(level, covariance, variance, inverse, log_determinant, filtered, misfit)


def _pairs(size: int) -> list[tuple[int, int]]:
    """Rows and columns of the packed entries above the diagonal."""
    rows, columns = np.triu_indices(size, 1)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _product(packed: list[Float[Array, "f n"]], vector: list[Float[Array, "f n"]]) -> list[Float[Array, "f n"]]:
    """A x, entry by entry, in real and imaginary parts."""
    size, pairs = len(vector) // 2, _pairs(len(vector) // 2)
    real, imaginary = vector[:size], vector[size:]
    out_real = [packed[m] * real[m] for m in range(size)]
    out_imaginary = [packed[m] * imaginary[m] for m in range(size)]
    for number, (i, j) in enumerate(pairs, size):
        a, b = packed[number] * sqrt(0.5), packed[number + len(pairs)] * sqrt(0.5)
        out_real[i] = out_real[i] + a * real[j] - b * imaginary[j]
        out_imaginary[i] = out_imaginary[i] + a * imaginary[j] + b * real[j]
        out_real[j] = out_real[j] + a * real[i] + b * imaginary[i]
        out_imaginary[j] = out_imaginary[j] + a * imaginary[i] - b * real[i]
    return out_real + out_imaginary


def _scatter(vector: list[Float[Array, "f n"]]) -> list[Float[Array, "f n"]]:
    """The entries of pack(y y^H)."""
    size, pairs = len(vector) // 2, _pairs(len(vector) // 2)
    real, imaginary = vector[:size], vector[size:]
    diagonal = [a * a + b * b for a, b in zip(real, imaginary, strict=True)]
    upper_real = [sqrt(2) * (real[i] * real[j] + imaginary[i] * imaginary[j]) for i, j in pairs]
    upper_imaginary = [sqrt(2) * (imaginary[i] * real[j] - real[i] * imaginary[j]) for i, j in pairs]
    return diagonal + upper_real + upper_imaginary


def _of_variances(found: Weighed) -> tuple[list[Float[Array, "f n"]], list[Float[Array, "f n"]]]:
    """Fit y^H R y and cost tr(S^-1 R) of v, class by class."""

    def traces(entries: list[Array]) -> list[Array]:
        # Sums of products, which the compiler makes one loop of; it would store the entries for a matrix product.
        return [
            reduce(jnp.add, (found.covariance[:, k, p, None] * entry for p, entry in enumerate(entries))) / found.level
            for k in range(found.covariance.shape[1])
        ]

    return traces(_scatter(found.filtered_entries)), traces(found.inverse_entries)


def spectra(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """T <- T (sum_n y^H R y V / sum_n tr(S^-1 R) V)^(1/2)."""
    activations = posterior.points["activations"]

    def improved(rows: Rows) -> Array:
        of_classes = [v for _, _, group in groups(model, rows.spectra, activations) for v in group]
        fit, cost = (
            jnp.concatenate([_einsum("fn,bn->fb", p, v) for p, v in zip(part, of_classes, strict=True)], 1)
            for part in _of_variances(weighed(model, rows, activations))
        )
        return improved_scalars(rows.spectra, fit, cost)

    return mapped(improved, rows(posterior, data), activations.shape[1])


def activations(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """V <- V (sum_f y^H R y T / sum_f tr(S^-1 R) T)^(1/2)."""
    activations = posterior.points["activations"]

    def of(rows: Rows) -> tuple[Array, ...]:
        of_classes = [t for _, group, _ in groups(model, rows.spectra, activations) for t in jnp.moveaxis(group, 1, 0)]
        return tuple(
            jnp.concatenate([_einsum("fn,fb->bn", p, t) for p, t in zip(part, of_classes, strict=True)])
            for part in _of_variances(weighed(model, rows, activations))
        )

    fit, cost = summed(of, rows(posterior, data), activations.shape[1])
    return improved_scalars(activations, fit, cost)


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """R <- A^-1 # (R B R), with A = sum_n v S^-1 and B = sum_n v y y^H, both with the loading's adjoint."""
    activations = posterior.points["activations"]

    def of(rows: Rows) -> tuple[Array, Array]:
        found = weighed(model, rows, activations)
        variance = jnp.swapaxes(found.variance, 0, 1)  # products one frequency at a time need no transposed copy

        def sums(entries: list[Array]) -> Array:
            return jnp.stack([_einsum("fn,fkn->fk", entry, variance) for entry in entries], 2)

        return sums(_scatter(found.filtered_entries)), sums(found.inverse_entries)

    fit, cost = mapped(of, rows(posterior, data), activations.shape[1])
    covariance = posterior.points["spatial_covariance"]
    return improved_matrices(covariance, loaded(fit, model.loading), loaded(cost, model.loading))


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """log p: nothing is latent."""
    activations, size = posterior.points["activations"], data[0].shape[-1]

    def of(rows: Rows) -> Array:
        found = weighed(model, rows, activations)
        log_scale = size * (jnp.log(found.level) + log(pi))
        return -jnp.where(rows.is_heard, log_scale + found.log_determinant + found.misfit, 0).sum()

    return summed(of, rows(posterior, data), activations.shape[1])


CLOSED_FORMS: Mapping[str, Callable] = {
    "spatial_covariance": spatial_covariance,
    "spectra": spectra,
    "activations": activations,
    "elbo": elbo,
}
