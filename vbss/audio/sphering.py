"""Whitening by what a recording itself holds, where nothing is known of the array."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from vbss.triangular import batched_cholesky, batched_solve_lower

_WHITE_SHARE = 0.01  # beside one part of the recording: keeps the covariance of few frames or like channels invertible


def sphering(
    mixture: Complex[Array, "frames frequencies microphones"],
) -> Complex[Array, "frequencies microphones microphones"]:
    """The matrices that make a recording white across its microphones, at each frequency over all its frames.

    The inverse Cholesky factors of (C_f + 0.01 I) / 1.01, where C_f = sum_t x_tf x_tf^H is brought to a mean eigenvalue
    of one, so that they depend neither on the level nor on the spectrum. Sources that the microphones hear as nearly
    the same, as a small array does at low frequencies, become as different as they can be. A silent frequency has the
    identity.

    Returns:
        Lower triangular matrices, of the mixture's dtype.
    """
    # Squares of a quiet recording would vanish.
    peak = jnp.max(jnp.abs(mixture), axis=(0, 2), keepdims=True)
    is_silent = peak < jnp.finfo(peak.dtype).tiny
    divisor = jnp.where(is_silent, 1, peak)
    scaled = jax.lax.complex(mixture.real / divisor, mixture.imag / divisor)
    covariance = jnp.einsum("tfm,tfn->fmn", scaled, scaled.conj(), precision="highest")
    size = mixture.shape[-1]
    level = jnp.trace(covariance, axis1=-2, axis2=-1).real / size
    is_silent = is_silent[0, :, 0]
    level = jnp.where(is_silent, 1, level)[:, None, None].astype(mixture.dtype)
    identity = jnp.broadcast_to(jnp.eye(size, dtype=mixture.dtype)[None], covariance.shape)
    loaded = jnp.where(is_silent[:, None, None], identity, covariance / level)
    factor = batched_cholesky((loaded + _WHITE_SHARE * identity) / (1 + _WHITE_SHARE))
    return batched_solve_lower(factor, identity)
