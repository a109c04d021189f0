"""The start of the mixture of complex angular central Gaussians: when each source is active, alike at all frequencies.

Frequencies are separated one by one from random masks, which needs nothing in common between them, and their classes
brought into one order. What is handed on is how much of a frame belongs to each source, averaged over frequencies: a
start that no frequency has wrong.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.alignment import align_permutations
from vbss.densities.exponential import loaded_scatter
from vbss.hermitian import inverse_and_log_determinant, packed_identity
from vbss.models.bins import heard

_STEPS = 10  # more make the masks of a frequency sharper, but not what is on average in a frame


def common_activity(
    model: Any, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None, *, key: Array
) -> dict[str, Array]:
    """Masks that are the same at all frequencies, and powers to match: {site: value} for `vbss.fit`.

    Args:
        key: JAX random key of the masks that the separation of each frequency starts from.
    """
    masks = np.asarray(_separated_frequencies(model, mixture, is_observed, key))
    permutations = align_permutations(masks)
    return _in_common(mixture, is_observed, np.take_along_axis(masks, permutations[:, None], 2))


@eqx.filter_jit
def given_covariances(
    model: Any,
    mixture: Complex[Array, "f t m"],
    covariance: Float[Array, "f k p"],
    is_observed: Bool[Array, "f t"] | None = None,
) -> dict[str, Array]:
    """The masks that spatial covariances from elsewhere give, and powers to match: {site: value} for `vbss.fit`.

    Args:
        covariance: of every source, packed (`vbss.hermitian.pack`); its level does not count.
    """
    size = mixture.shape[-1]
    precision, log_determinant = inverse_and_log_determinant(covariance)
    is_heard = heard(mixture, is_observed)[:, None]
    power = jnp.einsum("fpt,fkp->fkt", _scatter(model, mixture, is_heard[:, 0]), precision, precision="highest") / size
    power = jnp.where(is_heard, power, 1)
    fit = jnp.where(is_heard, -size * jnp.log(power) - log_determinant[..., None], 0)
    return {"source": jnp.swapaxes(jax.nn.softmax(fit, 1), 1, 2), "power": power}


@eqx.filter_jit
def _separated_frequencies(
    model: Any, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None, key: Array
) -> Float[Array, "f t k"]:
    """Masks by EM of the model with equal weights; bins that do not count are anyone's."""
    num_frequencies, num_frames, size = mixture.shape
    dtype = mixture.real.dtype
    is_heard = heard(mixture, is_observed)[:, None]
    scatter = _scatter(model, mixture, is_heard[:, 0])
    weight = model.prior_weight.astype(dtype)
    prior = (weight * packed_identity(size, dtype)).reshape(1, 1, -1)

    def step(state, _):
        masks, power = state
        counted = jnp.where(is_heard, masks, 0)
        total = jnp.einsum("fpt,fkt->fkp", scatter, counted / power, precision="highest")
        count = 2 * size + weight + counted.sum(-1, keepdims=True)
        precision, log_determinant = inverse_and_log_determinant((prior + total) / count)
        power = jnp.einsum("fpt,fkp->fkt", scatter, precision, precision="highest") / size
        power = jnp.where(is_heard, power, 1)
        fit = jnp.where(is_heard, -size * jnp.log(power) - log_determinant[..., None], 0)
        return (jax.nn.softmax(fit, 1), power), None

    shape = (num_frequencies, model.num_sources, num_frames)
    masks = jax.nn.softmax(jax.random.normal(key, shape, dtype), 1)
    power = jnp.broadcast_to(_mean_power(mixture, is_heard[:, 0])[:, None], shape)
    (masks, _), _ = jax.lax.scan(step, (masks, power), length=_STEPS)
    return jnp.swapaxes(masks, 1, 2)


@jax.jit
def _in_common(
    mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None, masks: Float[Array, "f t k"]
) -> dict[str, Array]:
    """The mean of the masks over the bins of a frame that count."""
    is_heard = heard(mixture, is_observed)
    num_classes = masks.shape[-1]
    count = is_heard.sum(0)[:, None]
    total = jnp.where(is_heard[..., None], masks, 0).sum(0)
    activity = jnp.where(count > 0, total / jnp.maximum(count, 1).astype(masks.dtype), 1 / num_classes)
    power = jnp.broadcast_to(_mean_power(mixture, is_heard)[:, None], (len(masks), num_classes, masks.shape[1]))
    return {"source": jnp.broadcast_to(activity[None], masks.shape), "power": power}


def _scatter(model: Any, mixture: Complex[Array, "f t m"], is_heard: Bool[Array, "f t"]) -> Float[Array, "f p t"]:
    """What the bins that count are to the model's densities: x x^H, packed, with the loading."""
    loading = jnp.broadcast_to(model.loading.astype(mixture.real.dtype), (1, 1))
    return jnp.swapaxes(loaded_scatter(jnp.where(is_heard[..., None], mixture, 0), loading), 1, 2)


def _mean_power(mixture: Complex[Array, "f t m"], is_heard: Bool[Array, "f t"]) -> Float[Array, "f t"]:
    """|x|^2 / M; 1 in bins that do not count."""
    return jnp.where(is_heard, (mixture.real**2 + mixture.imag**2).mean(-1), 1)
