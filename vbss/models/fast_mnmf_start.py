"""Starts of the local Gaussian model with jointly diagonal covariances, from masks."""

from math import isqrt
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from vbss.demixing import complex_rows, improved_rows
from vbss.hermitian import pack_outer
from vbss.models import local_gaussian_nmf_start
from vbss.models.local_gaussian_nmf_layout import variances

_SWEEPS = 30


@eqx.filter_jit
def given_masks(
    model: Any,
    mixture: Complex[Array, "f n m"],
    masks: Float[Array, "f n k"],
    is_observed: Bool[Array, "f n"] | None = None,
    *,
    key: Array,
) -> dict[str, Array]:
    """The start of `vbss.models.local_gaussian_nmf_start.given_masks`, its covariances jointly diagonalised."""
    start = local_gaussian_nmf_start.given_masks(model, mixture, masks, is_observed, key=key)
    covariance = start.pop("spatial_covariance")
    weights = variances(model, start["spectra"], start["activations"]).mean(-1).T
    demixing = joint_diagonalization(covariance, weights)
    return {**start, "demixing": demixing, "gains": _gains(demixing, covariance)}


def joint_diagonalization(
    covariances: Float[Array, "f k p"], weights: Float[Array, "f k"], num_sweeps: int = _SWEEPS
) -> Float[Array, "f m r"]:
    """Q that makes Q R_k Q^H nearly diagonal for all k, in the form of `vbss.Demixing`; any two R are made so.

    It maximises sum_k w_k [log|det Q|^2 - sum_m log(q_m R_k q_m^H)], the likelihood of normals of these covariances
    under diagonal ones, by tangents of the logarithm and iterative projection, and starts from the identity. Source:
    Pham, "Joint approximate diagonalization of positive definite Hermitian matrices" (2001), for the criterion.

    Args:
        covariances: R, packed, positive definite.
        weights: w >= 0, of any level.
    """
    weights = weights / weights.sum(-1, keepdims=True)
    num_frequencies, _, num_packed = covariances.shape
    size = isqrt(num_packed)

    def sweep(_, demixing: Array) -> Array:
        tangents = weights[..., None] / _gains(demixing, covariances)
        scatter = jnp.einsum("fkm,fkp->fmp", tangents, covariances, precision="highest")
        return improved_rows(demixing, jnp.ones(num_frequencies, scatter.dtype), scatter)

    start = jnp.broadcast_to(jnp.eye(size, 2 * size, dtype=covariances.dtype), (num_frequencies, size, 2 * size))
    return jax.lax.fori_loop(0, num_sweeps, sweep, start)


def _gains(demixing: Float[Array, "f m r"], covariances: Float[Array, "f k p"]) -> Float[Array, "f k m"]:
    """The diagonals of Q R Q^H."""
    filters = pack_outer(complex_rows(demixing).conj())
    return jnp.einsum("fkp,fmp->fkm", covariances, filters, precision="highest")
