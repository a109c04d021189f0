"""Starts of the local Gaussian model from masks: those of a mixture model, of a network, or an oracle's."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from vbss.errors import InputError
from vbss.hermitian import pack_outer, packed_identity
from vbss.models.bins import heard
from vbss.models.nmf import itakura_saito_nmf

_DIFFUSENESS = 1e-3  # of the spatial covariances at the start: masks leave some of nearly rank one
_QUIET = 3.0  # bins of this many times the median power of their frequency are noise with probability 1/2


@eqx.filter_jit
def given_masks(
    model: Any,
    mixture: Complex[Array, "f n m"],
    masks: Float[Array, "f n k"],
    is_observed: Bool[Array, "f n"] | None = None,
    *,
    key: Array,
) -> dict[str, Array]:
    """Covariances and low-rank spectra of what the masks give to each source.

    R_fk is the mean of z x x^H / |x|^2 and a little of the identity, with tr R = M; T and V fit z |x|^2 / M by
    Itakura-Saito non-negative matrix factorisation. The noise starts with R = I and takes of the masks what is quiet.

    Args:
        masks: z, the probability of each source.
        key: JAX random key of the factorisation's start.

    Raises:
        InputError: if there is not a mask for each of the model's sources and the mixture's bins.
    """
    expected = (*mixture.shape[:2], model.num_sources)
    if masks.shape != expected:
        raise InputError(f"masks must have shape (frequencies, frames, sources) {expected}, got {masks.shape}")
    is_heard = heard(mixture, is_observed)
    size = mixture.shape[-1]
    scatter = pack_outer(jnp.where(is_heard[..., None], mixture, 0))
    power = scatter[..., :size].mean(-1)
    weights = jnp.where(is_heard[..., None], masks, 0)
    key_sources, key_noise = jax.random.split(key)
    if model.has_noise:
        median = jnp.nanmedian(jnp.where(is_heard, power, jnp.nan), 1, keepdims=True)
        noise = jnp.where(is_heard, 1 / (1 + power / (_QUIET * median)), 0)
        weights = weights * (1 - noise)[..., None]

    direction = scatter / jnp.where(is_heard, power, 1)[..., None]
    total = jnp.einsum("fnp,fnk->fkp", direction, weights, precision="highest")
    identity = packed_identity(size, total.dtype).reshape(1, 1, -1)
    count = total[..., :size].mean(-1, keepdims=True)
    covariance = jnp.where(count > 0, total / jnp.where(count > 0, count, 1), identity)
    covariance = (covariance + _DIFFUSENESS * identity) / (1 + _DIFFUSENESS)
    powers = jnp.swapaxes(weights, 1, 2) * power[:, None]
    spectra, activations = itakura_saito_nmf(powers, model.num_components, key=key_sources, is_observed=is_heard)
    start = {
        "spatial_covariance": covariance,
        "spectra": spectra.reshape(spectra.shape[0], -1),
        "activations": activations.reshape(-1, activations.shape[-1]),
    }
    if not model.has_noise:
        return start
    spectrum, activation = itakura_saito_nmf((noise * power)[:, None], 1, key=key_noise, is_observed=is_heard)
    of_noise = {
        "spatial_covariance": jnp.broadcast_to(identity, covariance[:, :1].shape),
        "spectra": spectrum[..., 0],
        "activations": activation[0],
    }
    return {name: jnp.concatenate([start[name], of_noise[name]], 0 if name == "activations" else 1) for name in start}
