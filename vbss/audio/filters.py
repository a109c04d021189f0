"""From masks to sources by masking and the multichannel Wiener filter; normalisation of bins."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from vbss.errors import InputError
from vbss.triangular import batched_cholesky, batched_solve_lower, batched_solve_upper


def apply_masks(
    mixture: Complex[Array, "frames frequencies microphones"],
    masks: Float[Array, "frames frequencies sources"],
    reference_microphone: int = 0,
) -> Complex[Array, "sources frames frequencies"]:
    """Each source's mask times the mixture at the reference microphone.

    Raises:
        InputError: if the shapes do not belong together or there is no such microphone.
    """
    _check_filter_input(mixture, masks, reference_microphone)
    reference = mixture[..., reference_microphone]
    return jnp.moveaxis(masks, -1, 0).astype(mixture.dtype) * reference[None]


def multichannel_wiener(
    mixture: Complex[Array, "frames frequencies microphones"],
    masks: Float[Array, "frames frequencies sources"],
    reference_microphone: int = 0,
    loading: float = 1e-5,
) -> Complex[Array, "sources frames frequencies"]:
    """Each source as the reference microphone hears it, by the multichannel Wiener filter of the masks.

    With Phi_kf = sum_t m_tfk x_tf x_tf^H, source k is w_kf^H x_tf with w_kf = (sum_j Phi_jf + delta_f I)^-1
    Phi_kf e_ref (Souden, Benesty, Affes: On optimal frequency-domain multichannel linear filtering for noise
    reduction, IEEE TASLP 2010; the masks take the place of the known covariances). Without loading the
    estimates add up to the mixture at the reference microphone.

    delta_f is `loading` times the mean eigenvalue of sum_j Phi_jf. It keeps the filter finite where the
    microphones hear (nearly) the same, as at low frequencies; the default is what float32 needs for that.
    `loading=0` requires covariances of full rank. A silent frequency gives silence.

    Raises:
        InputError: if the shapes do not belong together, there is no such microphone, or `loading` is
            negative.
    """
    _check_filter_input(mixture, masks, reference_microphone)
    if not loading >= 0:
        raise InputError(f"loading must not be negative, got {loading!r}.")
    # The filter does not depend on the level; powers of a very quiet or loud recording could leave the range
    # of float32.
    observed = _scaled_to_peak(mixture, axes=(0, 2))

    def covariance(
        mask: Float[Array, "frames frequencies"],
    ) -> Complex[Array, "frequencies microphones microphones"]:
        weighted = mask[..., None].astype(observed.dtype) * observed
        return jnp.einsum("tfm,tfn->fmn", weighted, observed.conj(), precision=jax.lax.Precision.HIGHEST)

    # One source after the other: only one weighted copy of the mixture exists at a time.
    covariances = jax.lax.map(covariance, jnp.moveaxis(masks, -1, 0))
    total = jnp.sum(covariances, axis=0)
    level = jnp.trace(total, axis1=-2, axis2=-1).real / total.shape[-1]
    is_silent = level <= 0
    level = jnp.where(is_silent, 1, level)[:, None, None]
    diagonal = jnp.where(is_silent, 1, loading)[:, None, None].astype(total.dtype)
    identity = jnp.eye(total.shape[-1], dtype=total.dtype)[None]
    factor = batched_cholesky(_divide(total, level) + diagonal * identity)
    targets = _divide(jnp.moveaxis(covariances[..., reference_microphone], 0, -1), level)
    filters = batched_solve_upper(factor.conj(), batched_solve_lower(factor, targets))
    return jnp.einsum("fmk,tfm->ktf", filters.conj(), mixture, precision=jax.lax.Precision.HIGHEST)


def normalize_bins(
    mixture: Complex[Array, "frames frequencies microphones"],
) -> Complex[Array, "frames frequencies microphones"]:
    """The mixture divided by its norm over the microphones, bin by bin; silent bins stay zero.

    Spatial models whose bins have a free scale are unchanged by this, and all numbers become of order one.
    """
    # Squares of quiet bins would underflow, so the largest entry is brought to one first.
    scaled = _scaled_to_peak(mixture, axes=(2,))
    power = jnp.sum(scaled.real**2 + scaled.imag**2, axis=-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(power > 0, power, 1))
    return _divide(scaled, norm)


def _scaled_to_peak(values: Complex[Array, "..."], axes: tuple[int, ...]) -> Complex[Array, "..."]:
    """Values divided by their largest magnitude over `axes`; all zero (or subnormal) becomes zero."""
    peak = jnp.max(jnp.abs(values), axis=axes, keepdims=True)
    is_sound = peak >= jnp.finfo(peak.dtype).tiny
    return jnp.where(is_sound, _divide(values, jnp.where(is_sound, peak, 1)), 0)


def _divide(values: Complex[Array, "..."], divisor: Float[Array, "..."]) -> Complex[Array, "..."]:
    """Complex by real: a complex division would square the divisor, which underflows for small ones."""
    return jax.lax.complex(values.real / divisor, values.imag / divisor)


def _check_filter_input(mixture: Array, masks: Array, reference_microphone: int) -> None:
    if mixture.ndim != 3 or masks.ndim != 3 or mixture.shape[:2] != masks.shape[:2]:
        raise InputError(
            "mixture must have shape (frames, frequencies, microphones) and masks (frames, frequencies, "
            f"sources), got {mixture.shape} and {masks.shape}."
        )
    if not 0 <= reference_microphone < mixture.shape[2]:
        raise InputError(
            f"reference_microphone must be from 0 to {mixture.shape[2] - 1} for {mixture.shape[2]} "
            f"microphones, got {reference_microphone}."
        )
