"""Itakura-Saito non-negative matrix factorisation: low-rank variances of zero-mean signals from their powers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.additive import improved_scalars


def itakura_saito_nmf(
    power: Float[Array, "f k n"],
    num_components: int,
    *,
    key: Array,
    is_observed: Bool[Array, "f n"] | None = None,
    num_steps: int = 50,
) -> tuple[Float[Array, "f k b"], Float[Array, "k b n"]]:
    """Spectra T and activations V with sum_b T_fkb V_kbn near the power, for each signal k by itself.

    Minimises sum log v + P / v, the negative log likelihood of circular normals of variance v, by majorise-minimise
    steps from a random start. Source: Fevotte, Bertin and Durrieu, "Nonnegative matrix factorization with the
    Itakura-Saito divergence" (2009); Fevotte and Idier, "Algorithms for nonnegative matrix factorization with the
    beta-divergence" (2011), for the square root.

    Args:
        power: P >= 0, of any level.
        num_components: B, of each signal.
        key: JAX random key of the start.
        is_observed: bins that count; by default all.
        num_steps: updates of T and V.
    """
    num_frequencies, num_signals, num_frames = power.shape
    counts = jnp.ones((num_frequencies, num_frames), power.dtype)
    if is_observed is not None:
        counts = counts * is_observed.astype(power.dtype)
    counts = counts[:, None]
    level = (power * counts).mean((0, 2), keepdims=True)
    level = jnp.where(level > 0, level, 1)
    power = power * counts / level

    key_spectra, key_activations = jax.random.split(key)
    shapes = (num_frequencies, num_signals, num_components), (num_signals, num_components, num_frames)
    spectra, activations = (
        jax.random.uniform(key, shape, power.dtype, 0.5, 1.5)
        for key, shape in zip((key_spectra, key_activations), shapes, strict=True)
    )
    activations = activations / num_components

    def parts(spectra: Array, activations: Array) -> tuple[Array, Array]:
        inverse = 1 / jnp.einsum("fkb,kbn->fkn", spectra, activations)
        return power * inverse * inverse, counts * inverse

    def step(_, pair):
        spectra, activations = pair
        fit, cost = (jnp.einsum("fkn,kbn->fkb", part, activations) for part in parts(spectra, activations))
        spectra = improved_scalars(spectra, fit, cost)
        fit, cost = (jnp.einsum("fkn,fkb->kbn", part, spectra) for part in parts(spectra, activations))
        return spectra, improved_scalars(activations, fit, cost)

    spectra, activations = jax.lax.fori_loop(0, num_steps, step, (spectra, activations))
    return spectra * level, activations
