"""Cholesky factors and triangular solves of many small matrices, as straight-line arithmetic over the batch.

LAPACK takes such matrices one by one, and XLA's CPU runtime (jaxlib 0.10) may wait for ever where several batches of
thousands are taken at once. From a size on, the code grows too long to compile, and LAPACK is used.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_UNROLLED_SIZE = 6


def cholesky(matrix: Float[Array, "*batch l l"]) -> Float[Array, "*batch l l"]:
    """The lower factor L of L L'; nan where the matrix is not positive definite."""
    size = matrix.shape[-1]
    if size > _UNROLLED_SIZE:
        return jnp.linalg.cholesky(matrix)
    symmetric = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
    rows: list[list[Array]] = []
    for i in range(size):
        row: list[Array] = []
        for j in range(i):
            row.append((symmetric[..., i, j] - _dot(row, rows[j][:j])) / rows[j][j])
        row.append(jnp.sqrt(symmetric[..., i, i] - _dot(row, row)))
        rows.append(row)
    zero = jnp.zeros_like(symmetric[..., 0, 0])
    return jnp.stack([jnp.stack([*row, *[zero] * (size - len(row))], -1) for row in rows], -2)


def solve_lower(factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]) -> Float[Array, "*batch l k"]:
    """L^-1 B."""
    size = factor.shape[-1]
    if size > _UNROLLED_SIZE:
        return jax.scipy.linalg.solve_triangular(factor, right, lower=True)
    solved: list[Array] = []
    for i in range(size):
        entries = [factor[..., i, j, None] for j in range(i)]
        solved.append((right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def solve_upper(factor: Float[Array, "*batch l l"], right: Float[Array, "*batch l k"]) -> Float[Array, "*batch l k"]:
    """L^-T B, for the lower factor L."""
    size = factor.shape[-1]
    if size > _UNROLLED_SIZE:
        return jax.scipy.linalg.solve_triangular(factor, right, trans=1, lower=True)
    solved: list[Array] = []
    for i in reversed(range(size)):
        entries = [factor[..., j, i, None] for j in range(i + 1, size)]
        solved.insert(0, (right[..., i, :] - _dot(entries, solved)) / factor[..., i, i, None])
    return jnp.stack(solved, -2)


def _dot(left: list[Array], right: list[Array]) -> Array | float:
    total: Array | float = 0.0
    for a, b in zip(left, right, strict=True):
        total = total + a * b
    return total
