"""The one place where strict promotion rules are relaxed, for libraries that cannot run under them."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def relaxed_promotion() -> Iterator[None]:
    """Allow rank and dtype promotion inside the block.

    Our own numerics run under `jax_numpy_rank_promotion=raise` and `jax_numpy_dtype_promotion=strict`; NumPyro, optax
    and parts of `jax.scipy` do not, so calls into them (and the users' programs that they run) stand inside this
    context.
    """
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
