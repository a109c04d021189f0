"""A class of noise beside the sources of a mixture model of bins.

Its covariance is the identity, that of no direction (after `vbss.audio.diffuse_whitening`, sound from everywhere
alike), and is not inferred, as one that is follows the sources. It owns the bins that no source explains. It comes
after the sources, so that the probabilities of these do not add up to one where there is noise.
"""

from math import isqrt
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from vbss.hermitian import packed_identity


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


def with_noise(model: Any, start: dict[str, Array], mixture: Complex[Array, "f t m"]) -> dict[str, Array]:
    """A start of the sources with the noise, if there is any: it begins with the same share of every bin.

    Templates without the room's reverberation explain too little for what they leave to be noise.
    """
    if not model.has_noise:
        return start
    masks, power = start["source"], start["power"]
    share = jnp.ones_like(masks[..., :1])
    of_noise = (mixture.real**2 + mixture.imag**2).mean(-1)[:, None].astype(power.dtype)
    return {
        **start,
        "source": jnp.concatenate([model.num_sources * masks, share], -1) / model.num_classes,
        "power": jnp.concatenate([power, jnp.where(of_noise > 0, of_noise, 1)], 1),
    }


def gates(model: Any, direction: Float[Array, "k d"]) -> Float[Array, "classes covariances"]:
    """Which covariance each class has, in the order of `of_classes`: that of its direction, and of noise."""
    if not model.has_noise:
        return direction
    num_sources, num_directions = direction.shape
    is_noise = jnp.zeros((num_sources + 1, num_directions + 1), direction.dtype).at[-1, -1].set(1)
    return jnp.pad(direction, ((0, 1), (0, 1))) + is_noise
