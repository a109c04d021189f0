"""The compiled loop of an inference, and what its callers need to begin and end it."""

from hashlib import blake2b
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbss.compilation import compiled
from vbss.inference.algorithm import Algorithm
from vbss.inference.solution import Status
from vbss.program import Model

LONGEST_CHUNK = 50  # steps


def strong(tree: Any) -> Any:
    """Without weak types, which would cost a second compilation."""

    def anew(leaf: Any) -> Any:
        is_weak = eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) and leaf.weak_type
        return jax.lax.convert_element_type(leaf, leaf.dtype) if is_weak else leaf

    return jax.tree.map(anew, tree)


def fingerprint(data: tuple) -> str:
    """What tells data from others."""
    digest = blake2b(digest_size=16)
    for leaf in jax.tree.leaves(data):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def real_dtype(data: tuple) -> jnp.dtype:
    """Of bounds: that of the data, or JAX's own where they are whole numbers."""
    types = [jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(data) if eqx.is_inexact_array(leaf)]
    return jnp.result_type(*types) if types else jnp.zeros(()).dtype


@compiled
def run_chunk(
    algorithm: Algorithm,
    model: Model,
    state: Any,
    memory: Any,
    data: tuple,
    constants: Any,
    num_steps: Array,
) -> tuple[Model, Any, Any, Array, Array, Array]:
    """`num_steps` steps, or fewer when the inference ends.

    A step begins with the bound of the state that it finds, which shares its passes over the data with the updates.
    """
    size = _size(data)
    dtype = real_dtype(data)

    def go_on(carry):
        _, _, _, count, status = carry
        return (count < num_steps) & (status == Status.running.value)

    def body(carry):
        arrays, memory, trace, count, _ = carry
        model, state = eqx.combine(arrays, static)
        model, state, bound = algorithm.step(model, state, data, constants)
        bound = bound.astype(dtype)
        status, memory = algorithm.rule.judge(bound, memory, size)
        return eqx.filter((model, state), eqx.is_array), memory, trace.at[count].set(bound), count + 1, status

    arrays, static = eqx.partition((model, state), eqx.is_array)
    trace = jnp.zeros(LONGEST_CHUNK, dtype)
    carry = (arrays, memory, trace, jnp.int32(0), jnp.int32(Status.running.value))
    arrays, memory, trace, count, status = jax.lax.while_loop(go_on, body, carry)
    model, state = eqx.combine(arrays, static)
    return model, state, memory, trace, count, status


def _size(data: tuple) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(data) if jnp.issubdtype(leaf.dtype, jnp.number))


def judged(status: Status, last: Status) -> Status:
    """How a run ended: by what it was judged before its last step, and by the bound of its final state."""
    if last in (Status.nonfinite, Status.bound_decreased) and status is not Status.nonfinite:
        return last
    return last if status is Status.running else status
