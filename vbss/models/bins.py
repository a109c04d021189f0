"""What the models of array recordings ask of their bins."""

from functools import partial
from math import isqrt

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from vbss.errors import InputError
from vbss.expectation import Observations

einsum = partial(jnp.einsum, precision="highest")  # a GPU's default mantissa does not survive the inversions


def heard(mixture: Complex[Array, "f n m"], is_observed: Bool[Array, "f n"] | None = None) -> Bool[Array, "f n"]:
    """The bins that count: observed, and not silent (of no power in their number format), as silence has no density."""
    power = (mixture.real**2 + mixture.imag**2).sum(-1)
    return power > 0 if is_observed is None else (power > 0) & is_observed


def check_bins(mixture: Array, is_observed: Array | None) -> None:
    """Raise InputError where these are not complex bins (F, N, M), and which of them were observed (F, N)."""
    if not jnp.issubdtype(mixture.dtype, jnp.complexfloating):
        raise InputError(f"mixture must be complex, got {mixture.dtype}")
    if is_observed is not None and (is_observed.shape != mixture.shape[:2] or is_observed.dtype != bool):
        raise InputError(
            f"is_observed must be boolean of shape (frequencies, frames) {mixture.shape[:2]}, got "
            f"{is_observed.dtype} of shape {is_observed.shape}"
        )


def check_mixture(mixture: Array, is_observed: Array | None) -> None:
    """Raise InputError where these are not the bins of an array of any geometry, with sound in them."""
    if mixture.ndim != 3 or mixture.shape[2] < 2:
        raise InputError(
            "mixture must have shape (frequencies, frames, microphones) with at least 2 microphones, got "
            f"{mixture.shape}"
        )
    check_bins(mixture, is_observed)
    if not bool(heard(mixture, is_observed).any()):
        raise InputError("mixture must not be silent")


def bin_scatters(observations: Observations) -> Float[Array, "f p t"]:
    """x x^H of every bin, packed, of a model whose site `mixture` has complex normal densities."""
    return observations["mixture"]["scatter"]


def num_microphones(observations: Observations) -> int:
    """M, of the same."""
    return isqrt(bin_scatters(observations).shape[1])
