"""Cholesky factors and triangular solves of many small matrices, as arithmetic over the whole batch.

Up to a size it is straight-line code, which the compiler fuses with what stands around it; of larger matrices LAPACK
takes one, and the `batched_` functions take a batch column by column.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UNROLLED_SIZE = 6  # above this many rows the straight-line code grows too long to compile quickly


def cholesky(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch l l"]:
    """The lower factor L of L L'; nan where the matrix is not positive definite."""
    if matrix.shape[-1] > UNROLLED_SIZE:
        return jnp.linalg.cholesky(matrix)
    return _unrolled_cholesky((matrix + jnp.swapaxes(matrix, -1, -2)) / 2)


def solve_lower(factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]) -> Float[Array, "*batch l k"]:
    """L^-1 B."""
    if factor.shape[-1] > UNROLLED_SIZE:
        return jax.scipy.linalg.solve_triangular(factor, right, lower=True)
    return batched_solve_lower(factor, right)


def solve_upper(factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]) -> Float[Array, "*batch l k"]:
    """L^-T B, for the lower factor L."""
    if factor.shape[-1] > UNROLLED_SIZE:
        return jax.scipy.linalg.solve_triangular(factor, right, trans=1, lower=True)
    return batched_solve_upper(factor, right)


def batched_cholesky(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch l l"]:
    """`cholesky` of symmetric matrices, of any size without LAPACK."""
    size = matrix.shape[-1]
    if size <= UNROLLED_SIZE:
        return _unrolled_cholesky(matrix)

    def eliminate(rest: Array, i: Array) -> tuple[Array, Array]:
        row = jax.lax.dynamic_index_in_dim(rest, i, -2, keepdims=False)
        pivot = jnp.sqrt(jax.lax.dynamic_index_in_dim(row, i, -1))
        column = jnp.where(jnp.arange(size) < i, 0, row / pivot)
        return rest - column[..., :, None] * column[..., None, :], column

    _, columns = jax.lax.scan(eliminate, matrix, jnp.arange(size))
    return jnp.moveaxis(columns, 0, -1)


def batched_solve_lower(
    factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]
) -> Float[Array, "*batch l k"]:
    """`solve_lower` of any size without LAPACK."""
    size = factor.shape[-1]
    if size > UNROLLED_SIZE:
        return _by_columns(jnp.moveaxis(factor, -1, 0), right, reverse=False)
    solved: list[Array] = []
    for i in range(size):
        entries = [factor[..., i, j, None] for j in range(i)]
        solved.append((right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def batched_solve_upper(
    factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]
) -> Float[Array, "*batch l k"]:
    """`solve_upper` of any size without LAPACK."""
    size = factor.shape[-1]
    if size > UNROLLED_SIZE:
        return _by_columns(jnp.moveaxis(factor, -2, 0), right, reverse=True)
    solved: list[Array] = []
    for i in reversed(range(size)):
        entries = [factor[..., j, i, None] for j in range(i + 1, size)]
        solved.insert(0, (right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def _unrolled_cholesky(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch l l"]:
    rows: list[list[Array]] = []
    for i in range(matrix.shape[-1]):
        row: list[Array] = []
        for j in range(i):
            row.append((matrix[..., i, j] - _dot(row, rows[j][:j])) / rows[j][j])
        row.append(jnp.sqrt(matrix[..., i, i] - _dot(row, row)))
        rows.append(row)
    zero = jnp.zeros_like(matrix[..., 0, 0])
    return jnp.stack([jnp.stack([*row, *[zero] * (len(rows) - len(row))], -1) for row in rows], -2)


def _by_columns(columns: Float[Array, "l *batch l"], right: Float[Array, "*batch l k"], reverse: bool) -> Array:
    """Each unknown in turn, taken out of the right-hand sides by its column of the triangular matrix."""

    def substitute(rest: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        column, i = inputs
        pivot = jax.lax.dynamic_index_in_dim(column, i, -1)
        solved = jax.lax.dynamic_index_in_dim(rest, i, -2, keepdims=False) / pivot
        return rest - column[..., :, None] * solved[..., None, :], solved

    _, solved = jax.lax.scan(substitute, right, (columns, jnp.arange(len(columns))), reverse=reverse)
    return jnp.moveaxis(solved, 0, -2)


def _dot(left: list[Array], right: list[Array]) -> Array | float:
    total: Array | float = 0.0
    for a, b in zip(left, right, strict=True):
        total = total + a * b
    return total
