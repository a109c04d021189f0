"""What the constructors of complex distributions ask of their arguments."""

import jax.numpy as jnp
from jaxtyping import Array

from vbss.context import relaxed_promotion
from vbss.errors import InputError


def as_complex(*arguments) -> list[Array]:
    """The arguments as arrays of one complex dtype: the narrowest that holds them all."""
    arrays = [jnp.asarray(argument) for argument in arguments]
    with relaxed_promotion():
        dtype = jnp.result_type(*arrays, 0j)
    return [array.astype(dtype) for array in arrays]


def as_floating(array: Array) -> Array:
    """A real array in floating point: of its own precision, or the default one for whole numbers."""
    with relaxed_promotion():
        dtype = jnp.result_type(array, 0.0)
    return array.astype(dtype)


def common_batch(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The batch shape that the named arguments' batch shapes broadcast to.

    Raises:
        InputError: if they do not broadcast.
    """
    try:
        return jnp.broadcast_shapes(*shapes.values())
    except ValueError as error:
        described = " and ".join(f"{shape} of {name}" for name, shape in shapes.items())
        raise InputError(f"batch shapes must broadcast, got {described}.") from error


def check_square(name: str, matrix: Array) -> None:
    """Refuse what is not a batch of square matrices of at least one row.

    Raises:
        InputError: if the last two axes differ, are empty, or are missing.
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        raise InputError(f"{name} must end in two equal axes (*batch, M, M), got shape {matrix.shape}.")
