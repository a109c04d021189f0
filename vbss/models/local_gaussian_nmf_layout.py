"""How the local Gaussian model's unknowns make variances and covariances: what the program says, in one place."""

from math import isqrt
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.hermitian import packed_identity


def loaded(covariance: Float[Array, "*batch p"], loading: Float[Array, ""]) -> Float[Array, "*batch p"]:
    """Packed R + loading tr(R) / M I. The map is its own adjoint."""
    size = isqrt(covariance.shape[-1])
    identity = packed_identity(size, covariance.dtype).reshape(*(1,) * (covariance.ndim - 1), -1)
    return covariance + loading.astype(identity.dtype) * covariance[..., :size].mean(-1, keepdims=True) * identity


def groups(
    model: Any, spectra: Float[Array, "f c"], activations: Float[Array, "c n"]
) -> list[tuple[slice, Float[Array, "f k b"], Float[Array, "k b n"]]]:
    """T and V of the sources, of `num_components` each, and of the noise, of one; and which classes these are."""
    num_sources, num_components = model.num_sources, model.num_components
    end = num_sources * num_components
    sizes = [(slice(0, num_sources), slice(0, end), (num_sources, num_components))]
    if model.has_noise:
        sizes.append((slice(num_sources, num_sources + 1), slice(end, end + 1), (1, 1)))
    return [
        (classes, spectra[:, part].reshape(-1, *shape), activations[part].reshape(*shape, -1))
        for classes, part, shape in sizes
    ]


def variances(model: Any, spectra: Float[Array, "f c"], activations: Float[Array, "c n"]) -> Float[Array, "k f n"]:
    """v_fkn = sum_b T_fkb V_kbn."""
    return jnp.concatenate(
        [jnp.einsum("fkb,kbn->kfn", t, v, precision="highest") for _, t, v in groups(model, spectra, activations)]
    )
