"""What may be computed in half precision, and what may not."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def at_least_single(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Half precision as float32; other values as they are."""
    return values.astype(jnp.float32) if values.dtype.itemsize < 4 else values
