"""Cholesky factors and triangular solves of many small matrices, as arithmetic over the whole batch.

Up to a size it is straight-line code, which the compiler fuses with what stands around it; of larger matrices LAPACK
takes one, and the `batched_` functions take a batch column by column.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

UNROLLED_SIZE = 6  # above this many rows the straight-line code grows too long to compile quickly


def cholesky(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch l l"]:
    """The lower factor L of L L'; nan where the matrix is not positive definite."""
    if matrix.shape[-1] > UNROLLED_SIZE:
        return jnp.linalg.cholesky(matrix)
    return batched_cholesky((matrix + jnp.swapaxes(matrix, -1, -2)) / 2)


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


def batched_cholesky(matrix: Inexact[Array, "*batch l l"]) -> Inexact[Array, "*batch l l"]:
    """The factor L of L L^H without LAPACK, of any size, real or complex; of the matrix, the lower triangle is read.

    Of a matrix that is not positive definite, the lower triangle is nan.
    """
    size = matrix.shape[-1]
    factor = _unrolled_cholesky(matrix) if size <= UNROLLED_SIZE else _cholesky_by_columns(matrix)
    is_positive = (jnp.diagonal(factor, axis1=-2, axis2=-1).real > 0).all(-1)[..., None, None]
    failed = jnp.where(np.tri(size, dtype=bool), jnp.nan, 0).astype(factor.dtype)
    return jnp.where(is_positive, factor, jnp.broadcast_to(failed, factor.shape))


def _cholesky_by_columns(matrix: Inexact[Array, "*batch l l"]) -> Inexact[Array, "*batch l l"]:
    size = matrix.shape[-1]

    def eliminate(rest: Array, i: Array) -> tuple[Array, Array]:
        column = jax.lax.dynamic_index_in_dim(rest, i, -1, keepdims=False)
        pivot = jnp.sqrt(jax.lax.dynamic_index_in_dim(column, i, -1).real).astype(rest.dtype)
        below = (jnp.arange(size) >= i).reshape(*(1,) * (column.ndim - 1), size)
        column = jnp.where(below, column / pivot, 0)
        return rest - column[..., :, None] * column[..., None, :].conj(), column

    _, columns = jax.lax.scan(eliminate, matrix, jnp.arange(size))
    return jnp.moveaxis(columns, 0, -1)


def batched_solve_lower(
    factor: Inexact[Array, "*batch l l"], right: Inexact[Array, "*batch l k"]
) -> Inexact[Array, "*batch l k"]:
    """`solve_lower` of any size, real or complex, without LAPACK."""
    size = factor.shape[-1]
    if size > UNROLLED_SIZE:
        return _by_columns(jnp.moveaxis(factor, -1, 0), right, reverse=False)
    solved: list[Array] = []
    for i in range(size):
        entries = [factor[..., i, j, None] for j in range(i)]
        solved.append((right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def batched_solve_upper(
    factor: Inexact[Array, "*batch l l"], right: Inexact[Array, "*batch l k"]
) -> Inexact[Array, "*batch l k"]:
    """`solve_upper` of any size, real or complex (not conjugated), without LAPACK."""
    size = factor.shape[-1]
    if size > UNROLLED_SIZE:
        return _by_columns(jnp.moveaxis(factor, -2, 0), right, reverse=True)
    solved: list[Array] = []
    for i in reversed(range(size)):
        entries = [factor[..., j, i, None] for j in range(i + 1, size)]
        solved.insert(0, (right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def _unrolled_cholesky(matrix: Inexact[Array, "*batch l l"]) -> Inexact[Array, "*batch l l"]:
    rows: list[list[Array]] = []
    for i in range(matrix.shape[-1]):
        row: list[Array] = []
        for j in range(i):
            row.append((matrix[..., i, j] - _dot(row, [entry.conj() for entry in rows[j][:j]])) / rows[j][j])
        pivot = matrix[..., i, i] - _dot(row, [entry.conj() for entry in row])
        row.append(jnp.sqrt(pivot.real).astype(matrix.dtype))
        rows.append(row)
    zero = jnp.zeros_like(matrix[..., 0, 0])
    return jnp.stack([jnp.stack([*row, *[zero] * (len(rows) - len(row))], -1) for row in rows], -2)


def _by_columns(columns: Inexact[Array, "l *batch l"], right: Inexact[Array, "*batch l k"], reverse: bool) -> Array:
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
