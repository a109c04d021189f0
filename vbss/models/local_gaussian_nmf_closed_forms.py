"""Hand-derived updates of the local Gaussian model, bin by bin in packed real arithmetic.

Every update weighs how well the sources' covariances fit the bins, y y^H with y = S^-1 x, against what they cost, S^-1
(`vbss.additive`). S and y are of bins scaled to a mean power of one, so that no number leaves the range of float32;
frames are the last axis. Bins that do not count have neither fit nor cost. A few frequencies at a time are weighed
(`vbss.models.by_frequency`).
"""

from collections.abc import Callable, Mapping
from functools import reduce
from math import log, pi
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.additive import improved_matrices
from vbss.expectation import Observations
from vbss.hermitian import inverse_entries
from vbss.models.bin_parts import matrix_product, mean_powers, real_parts, scatter_entries
from vbss.models.bins import einsum, heard
from vbss.models.by_frequency import mapped, summed
from vbss.models.local_gaussian_nmf_layout import loaded, variances
from vbss.models.nmf_closed_forms import updates_of_variances
from vbss.posteriors import Posterior


class Rows(NamedTuple):
    """What there is of each frequency: the data, and the unknowns but for the activations, which all share.

    Attributes:
        parts: of x (`vbss.models.bin_parts`).
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
    points, is_heard = posterior.points, heard(*data)
    return Rows(real_parts(data[0], is_heard), is_heard, points["spatial_covariance"], points["spectra"])


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
    level = mean_powers(parts, is_heard)
    covariance = loaded(rows.covariance, model.loading)
    variance = variances(model, rows.spectra, activations) / level[None]
    total = einsum("fkp,kfn->fpn", covariance, variance)
    inverse, log_determinant = inverse_entries([total[:, p] for p in range(total.shape[1])])
    inverse = [jnp.where(is_heard, entry, 0) for entry in inverse]
    # A division, as the compiler keeps what it gives but computes a product again wherever it is used.
    root = jnp.sqrt(level)
    filtered = [entry / root for entry in matrix_product(inverse, parts)]
    misfit = reduce(jnp.add, (a * b for a, b in zip(parts, filtered, strict=True))) / root
    return Weighed(level, covariance, variance, inverse, log_determinant, filtered, misfit)


def _of_variances(
    model: Any, rows: Rows, activations: Float[Array, "c n"]
) -> tuple[list[Float[Array, "f n"]], list[Float[Array, "f n"]]]:
    """Fit y^H R y and cost tr(S^-1 R) of v, class by class."""
    found = weighed(model, rows, activations)

    def traces(entries: list[Array]) -> list[Array]:
        # Sums of products, which the compiler makes one loop of; it would store the entries for a matrix product.
        return [
            reduce(jnp.add, (found.covariance[:, k, p, None] * entry for p, entry in enumerate(entries))) / found.level
            for k in range(found.covariance.shape[1])
        ]

    return traces(scatter_entries(found.filtered_entries)), traces(found.inverse_entries)


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """R <- A^-1 # (R B R), with A = sum_n v S^-1 and B = sum_n v y y^H, both with the loading's adjoint."""
    activations = posterior.points["activations"]

    def of(rows: Rows) -> tuple[Array, Array]:
        found = weighed(model, rows, activations)
        variance = jnp.swapaxes(found.variance, 0, 1)  # products one frequency at a time need no transposed copy

        def sums(entries: list[Array]) -> Array:
            return jnp.stack([einsum("fn,fkn->fk", entry, variance) for entry in entries], 2)

        return sums(scatter_entries(found.filtered_entries)), sums(found.inverse_entries)

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
    "elbo": elbo,
    **updates_of_variances(rows, _of_variances),
}
