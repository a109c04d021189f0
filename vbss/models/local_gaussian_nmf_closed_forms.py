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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.additive import improved_matrices, improved_scalars
from vbss.expectation import Observations
from vbss.hermitian import inverse_and_log_determinant, pack
from vbss.models.bins import heard
from vbss.models.by_frequency import mapped, summed
from vbss.models.local_gaussian_nmf_layout import groups, loaded, variances
from vbss.posteriors import Posterior

_einsum = partial(jnp.einsum, precision="highest")  # a GPU's default mantissa does not survive the inversions


class Rows(NamedTuple):
    """What there is of each frequency: the data, and the unknowns but for the activations, which all share.

    Attributes:
        mixture: complex.
        is_heard: which bins count.
        covariance: packed R.
        spectra: T.
    """

    mixture: Complex[Array, "f n m"]
    is_heard: Bool[Array, "f n"]
    covariance: Float[Array, "f k p"]
    spectra: Float[Array, "f c"]


def rows(posterior: Posterior, data: tuple) -> Rows:
    """Of data and posterior."""
    points = posterior.points
    return Rows(data[0], heard(*data), points["spatial_covariance"], points["spectra"])


class Weighed(NamedTuple):
    """What the updates need of the bins, at the present values of all unknowns.

    Attributes:
        level: |x|^2 / M, 1 in bins that do not count.
        observed: M real, then M imaginary parts of x / level^(1/2), 0 in bins that do not count.
        covariance: packed R with its loading.
        variance: v / level.
        inverse: packed inverse of S / level, 0 in bins that do not count.
        log_determinant: of S / level.
        filtered: y = S^-1 x of the scaled bins, as `observed`.
    """

    level: Float[Array, "f n"]
    observed: Float[Array, "f r n"]
    covariance: Float[Array, "f k p"]
    variance: Float[Array, "k f n"]
    inverse: Float[Array, "f p n"]
    log_determinant: Float[Array, "f n"]
    filtered: Float[Array, "f r n"]


def weighed(model: Any, rows: Rows, activations: Float[Array, "c n"]) -> Weighed:
    """The one pass over the bins that every update and the bound begin with."""
    mixture, is_heard, size = rows.mixture, rows.is_heard, rows.mixture.shape[-1]
    parts = jnp.concatenate([jnp.swapaxes(mixture.real, 1, 2), jnp.swapaxes(mixture.imag, 1, 2)], 1)
    parts = jnp.where(is_heard[:, None], parts, 0)
    level = jnp.where(is_heard, (parts * parts).sum(1) / size, 1)
    observed = parts / jnp.sqrt(level)[:, None]
    covariance = loaded(rows.covariance, model.loading)
    variance = variances(model, rows.spectra, activations) / level[None]
    total = _einsum("fkp,kfn->fpn", covariance, variance)
    inverse, log_determinant = inverse_and_log_determinant(jnp.swapaxes(total, 1, 2))
    inverse = jnp.where(is_heard[:, None], jnp.swapaxes(inverse, 1, 2), 0)
    filtered = _product(inverse, observed)
    return Weighed(level, observed, covariance, variance, inverse, log_determinant, filtered)


def _pairs(size: int) -> list[tuple[int, int]]:
    """Rows and columns of the packed entries above the diagonal."""
    rows, columns = np.triu_indices(size, 1)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _product(packed: Float[Array, "f p n"], vector: Float[Array, "f r n"]) -> Float[Array, "f r n"]:
    """A x, entry by entry, in real and imaginary parts."""
    size, pairs = vector.shape[1] // 2, _pairs(vector.shape[1] // 2)
    real, imaginary = ([vector[:, start + m] for m in range(size)] for start in (0, size))
    out_real = [packed[:, m] * real[m] for m in range(size)]
    out_imaginary = [packed[:, m] * imaginary[m] for m in range(size)]
    for number, (i, j) in enumerate(pairs, size):
        a, b = packed[:, number] * sqrt(0.5), packed[:, number + len(pairs)] * sqrt(0.5)
        out_real[i] = out_real[i] + a * real[j] - b * imaginary[j]
        out_imaginary[i] = out_imaginary[i] + a * imaginary[j] + b * real[j]
        out_real[j] = out_real[j] + a * real[i] + b * imaginary[i]
        out_imaginary[j] = out_imaginary[j] + a * imaginary[i] - b * real[i]
    return jnp.stack(out_real + out_imaginary, 1)


def _scatter(vector: Float[Array, "f r n"]) -> list[Float[Array, "f n"]]:
    """The entries of pack(y y^H)."""
    size, pairs = vector.shape[1] // 2, _pairs(vector.shape[1] // 2)
    real, imaginary = ([vector[:, start + m] for m in range(size)] for start in (0, size))
    diagonal = [a * a + b * b for a, b in zip(real, imaginary, strict=True)]
    upper_real = [sqrt(2) * (real[i] * real[j] + imaginary[i] * imaginary[j]) for i, j in pairs]
    upper_imaginary = [sqrt(2) * (imaginary[i] * real[j] - real[i] * imaginary[j]) for i, j in pairs]
    return diagonal + upper_real + upper_imaginary


def _of_variances(found: Weighed) -> tuple[Float[Array, "k f n"], Float[Array, "k f n"]]:
    """Fit y^H R y and cost tr(S^-1 R) of v."""
    num_packed = found.inverse.shape[1]
    evidence, inverse = _scatter(found.filtered), [found.inverse[:, p] for p in range(num_packed)]

    def traces(entries: list[Array]) -> Array:
        # Sums of products, which the compiler makes one loop of; it would store the entries for a matrix product.
        return jnp.stack(
            [
                reduce(jnp.add, (found.covariance[:, k, p, None] * entry for p, entry in enumerate(entries)))
                for k in range(found.covariance.shape[1])
            ]
        )

    return traces(evidence) / found.level[None], traces(inverse) / found.level[None]


def spectra(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """T <- T (sum_n y^H R y V / sum_n tr(S^-1 R) V)^(1/2)."""
    activations = posterior.points["activations"]

    def improved(rows: Rows) -> Array:
        fit, cost = (
            jnp.concatenate(
                [
                    _einsum("kfn,kbn->fkb", part[classes], v).reshape(part.shape[1], -1)
                    for classes, _, v in groups(model, rows.spectra, activations)
                ],
                1,
            )
            for part in _of_variances(weighed(model, rows, activations))
        )
        return improved_scalars(rows.spectra, fit, cost)

    return mapped(improved, rows(posterior, data), activations.shape[1])


def activations(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """V <- V (sum_f y^H R y T / sum_f tr(S^-1 R) T)^(1/2)."""
    activations = posterior.points["activations"]

    def of(rows: Rows) -> tuple[Array, ...]:
        return tuple(
            jnp.concatenate(
                [
                    _einsum("kfn,fkb->kbn", part[classes], t).reshape(-1, part.shape[2])
                    for classes, t, _ in groups(model, rows.spectra, activations)
                ]
            )
            for part in _of_variances(weighed(model, rows, activations))
        )

    fit, cost = summed(of, rows(posterior, data), activations.shape[1])
    return improved_scalars(activations, fit, cost)


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """R <- A^-1 # (R B R), with A = sum_n v S^-1 and B = sum_n v y y^H, both with the loading's adjoint."""
    activations, size = posterior.points["activations"], data[0].shape[-1]

    def of(rows: Rows) -> tuple[Array, Array]:
        found = weighed(model, rows, activations)
        variance = jnp.swapaxes(found.variance, 0, 1)  # products one frequency at a time need no transposed copy
        cost = _einsum("fpn,fkn->fkp", found.inverse, variance)
        weighted = variance[:, :, None] * found.filtered[:, None]
        products = _einsum("fkin,fjn->fkij", weighted, found.filtered)
        real = products[..., :size, :size] + products[..., size:, size:]
        imaginary = products[..., size:, :size] - products[..., :size, size:]
        return pack(jax.lax.complex(real, imaginary)), cost

    fit, cost = mapped(of, rows(posterior, data), activations.shape[1])
    covariance = posterior.points["spatial_covariance"]
    return improved_matrices(covariance, loaded(fit, model.loading), loaded(cost, model.loading))


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """log p: nothing is latent."""
    activations, size = posterior.points["activations"], data[0].shape[-1]

    def of(rows: Rows) -> Array:
        found = weighed(model, rows, activations)
        misfit = (found.observed * found.filtered).sum(1)
        log_scale = size * (jnp.log(found.level) + log(pi))
        return -jnp.where(rows.is_heard, log_scale + found.log_determinant + misfit, 0).sum()

    return summed(of, rows(posterior, data), activations.shape[1])


CLOSED_FORMS: Mapping[str, Callable] = {
    "spatial_covariance": spatial_covariance,
    "spectra": spectra,
    "activations": activations,
    "elbo": elbo,
}
