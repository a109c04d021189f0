"""What the models of array recordings ask of their bins."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex

from vbss.errors import InputError


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
