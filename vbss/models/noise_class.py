"""A class of noise beside the sources of a mixture model of bins.

Its covariance is the identity, that of no direction, and is not inferred, as one that is follows the sources. After
`vbss.audio.diffuse_whitening` that is sound from everywhere alike; after `vbss.audio.sphering`, where nothing is known
of the array, it is only what the whole recording has on average, and serves less well. It owns the bins that no source
explains. It comes after the sources, whose probabilities do not add up to one where there is noise.
"""

from math import isqrt
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from vbss.hermitian import packed_identity
from vbss.models.bins import heard


def of_classes(model: Any, covariance: dict[str, Array]) -> dict[str, Array]:
    """H^-1 (F, K, M*M) and log|H| (F, K) of sources or directions, with those of the noise if there is any."""
    if not model.has_noise:
        return covariance
    precision, log_determinant = covariance["precision"], covariance["log_determinant"]
    identity = packed_identity(isqrt(precision.shape[-1]), precision.dtype).reshape(1, 1, -1)
    identity = jnp.broadcast_to(identity, precision[:, :1].shape)
    return {
        "precision": jnp.concatenate([precision, identity], 1),
        "log_determinant": jnp.pad(log_determinant, ((0, 0), (0, 1))),
    }


def with_noise(
    model: Any,
    start: dict[str, Array],
    mixture: Complex[Array, "f t m"],
    is_observed: Bool[Array, "f t"] | None = None,
) -> dict[str, Array]:
    """A start of the sources with the noise, if there is any: it begins with the same share of every bin.

    Templates without the room's reverberation explain too little for what they leave to be noise.
    """
    if not model.has_noise:
        return start
    masks, power = start["source"], start["power"]
    share = jnp.ones_like(masks[..., :1])
    is_heard = heard(mixture, is_observed)
    counted = jnp.where(is_heard[..., None], mixture, 1)  # whatever other bins hold
    of_noise = (counted.real**2 + counted.imag**2).mean(-1)[:, None].astype(power.dtype)
    return {
        **start,
        "source": jnp.concatenate([model.num_sources * masks, share], -1) / model.num_classes,
        "power": jnp.concatenate([power, of_noise], 1),
    }


def gates(model: Any, direction: Float[Array, "k d"]) -> Float[Array, "classes covariances"]:
    """Which covariance each class has, in the order of `of_classes`: that of its direction, and of noise."""
    if not model.has_noise:
        return direction
    num_sources, num_directions = direction.shape
    is_noise = jnp.zeros((num_sources + 1, num_directions + 1), direction.dtype).at[-1, -1].set(1)
    return jnp.pad(direction, ((0, 1), (0, 1))) + is_noise
