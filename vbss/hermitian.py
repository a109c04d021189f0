"""Hermitian matrices as real vectors: packing, and Cholesky-based inverse and log determinant in real arithmetic.

`pack` is an isometry from the Hermitian M x M matrices to R^(M^2): tr(A B) = pack(A) . pack(B) and
x^H A x = pack(A) . pack(x x^H), so that quadratic forms and scatter matrices become plain real products. The order is
[A_ii, sqrt(2) Re A_ij, sqrt(2) Im A_ij] with i < j row by row.
"""

from math import isqrt, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.triangular import batched_cholesky, batched_solve_lower

_UNROLLED_SIZE = 8  # above this many rows the straight-line code grows too long to compile quickly


def _upper(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(size, 1)


def pack(matrix: Complex[Array, "*batch m m"]) -> Float[Array, "*batch m*m"]:
    """The real coordinates of a Hermitian matrix; only its diagonal and upper triangle are read."""
    rows, columns = _upper(matrix.shape[-1])
    upper = matrix[..., rows, columns] * sqrt(2)
    diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    return jnp.concatenate([diagonal.real, upper.real, upper.imag], -1)


def unpack(packed: Float[Array, "*batch p"]) -> Complex[Array, "*batch m m"]:
    """The Hermitian matrix of real coordinates: the inverse of `pack`."""
    size = isqrt(packed.shape[-1])
    rows, columns = _upper(size)
    diagonal, real, imaginary = jnp.split(packed, [size, size + len(rows)], -1)
    upper = jax.lax.complex(real, imaginary) / sqrt(2)
    matrix = jnp.zeros((*packed.shape[:-1], size, size), upper.dtype)
    matrix = matrix.at[..., rows, columns].set(upper)
    matrix = matrix.at[..., columns, rows].set(upper.conj())
    index = np.arange(size)
    return matrix.at[..., index, index].set(jax.lax.complex(diagonal, jnp.zeros_like(diagonal)))


def pack_outer(vector: Complex[Array, "*batch m"]) -> Float[Array, "*batch m*m"]:
    """`pack(x x^H)` without forming the matrix."""
    rows, columns = _upper(vector.shape[-1])
    real, imaginary = vector.real, vector.imag
    a, b = real[..., rows], imaginary[..., rows]
    c, d = real[..., columns], imaginary[..., columns]
    upper_real, upper_imaginary = a * c + b * d, b * c - a * d
    return jnp.concatenate([real**2 + imaginary**2, sqrt(2) * upper_real, sqrt(2) * upper_imaginary], -1)


def packed_identity(size: int, dtype: jnp.dtype) -> Float[Array, " p"]:
    """`pack(I)` of the given size."""
    return jnp.concatenate([jnp.ones(size, dtype), jnp.zeros(size * (size - 1), dtype)])


def inverse_and_log_determinant(
    packed: Float[Array, "*batch p"],
) -> tuple[Float[Array, "*batch p"], Float[Array, "*batch"]]:
    """Packed inverse and log determinant of a packed Hermitian positive definite matrix, from one Cholesky factor.

    A matrix that is not positive definite gives nan. Up to 8 rows the factorisation is straight-line real code over the
    batch, which compiles to vectorised kernels instead of one small LAPACK call per matrix.
    """
    if isqrt(packed.shape[-1]) > _UNROLLED_SIZE:
        return _by_columns(packed)
    return _stacked(packed)


def inverse_entries(
    entries: list[Float[Array, "*batch"]],
) -> tuple[list[Float[Array, "*batch"]], Float[Array, "*batch"]]:
    """`inverse_and_log_determinant` of matrices whose packed entries are arrays by themselves, in any layout.

    What is then computed of the inverse's entries reads them one by one: the compiler makes one loop of it all, where
    it would store a packed array.
    """
    if isqrt(len(entries)) > _UNROLLED_SIZE:
        inverse, log_determinant = _by_columns(jnp.stack(entries, -1))
        return [inverse[..., i] for i in range(len(entries))], log_determinant
    return _unrolled(entries)


def _by_columns(packed: Array) -> tuple[Array, Array]:
    factor = batched_cholesky(unpack(packed))
    log_determinant = 2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1).real).sum(-1)
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    root = batched_solve_lower(factor, identity)
    return pack(jnp.einsum("...ki,...kj->...ij", root.conj(), root, precision="highest")), log_determinant


# Compiled by itself so that it is traced once for a shape, however often a program uses it.
@jax.jit
def _stacked(packed: Array) -> tuple[Array, Array]:
    entries, log_determinant = _unrolled([packed[..., i] for i in range(packed.shape[-1])])
    return jnp.stack(entries, -1), log_determinant


@jax.jit
def _unrolled(entry: list[Array]) -> tuple[list[Array], Array]:
    size = isqrt(len(entry))
    rows, columns = _upper(size)
    scale = sqrt(0.5)
    real = {(int(j), int(i)): entry[size + n] * scale for n, (i, j) in enumerate(zip(rows, columns, strict=True))}
    imaginary = {
        (int(j), int(i)): -entry[size + len(rows) + n] * scale
        for n, (i, j) in enumerate(zip(rows, columns, strict=True))
    }

    # A = L L^H, column by column; L as pairs (real, imaginary) below the diagonal, its diagonal real.
    # Entries are divided by a pivot's root, not multiplied by its reciprocal: the compiler keeps what a division gives,
    # but would compute a product again for every entry of the result that needs it.
    lower: dict[tuple[int, int], tuple[Array, Array]] = {}
    pivots: list[Array] = []
    log_determinant = jnp.zeros_like(entry[0])
    for j in range(size):
        pivot = entry[j] - sum(
            (lower[j, k][0] ** 2 + lower[j, k][1] ** 2 for k in range(j)), start=jnp.zeros_like(entry[0])
        )
        pivot = jnp.where(pivot > 0, pivot, jnp.nan)
        pivots.append(jnp.sqrt(pivot))
        log_determinant = log_determinant + 2 * jnp.log(pivots[j])
        for i in range(j + 1, size):
            a, b = real[i, j], imaginary[i, j]
            for k in range(j):
                (c, d), (e, f) = lower[i, k], lower[j, k]
                a, b = a - (c * e + d * f), b - (d * e - c * f)
            lower[i, j] = (a / pivots[j], b / pivots[j])

    # W = L^-1 by forward substitution, then A^-1 = W^H W.
    zero = jnp.zeros_like(entry[0])
    inverse: dict[tuple[int, int], tuple[Array, Array]] = {(j, j): (1 / pivots[j], zero) for j in range(size)}
    for j in range(size):
        for i in range(j + 1, size):
            a, b = zero, zero
            for k in range(j, i):
                (c, d), (e, f) = lower[i, k], inverse[k, j]
                a, b = a - (c * e - d * f), b - (c * f + d * e)
            inverse[i, j] = (a / pivots[i], b / pivots[i])

    diagonal = [
        sum((inverse[k, i][0] ** 2 + inverse[k, i][1] ** 2 for k in range(i, size)), start=zero) for i in range(size)
    ]
    upper_real, upper_imaginary = [], []
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        a, b = zero, zero
        for k in range(j, size):
            (c, d), (e, f) = inverse[k, i], inverse[k, j]
            a, b = a + c * e + d * f, b + c * f - d * e
        upper_real.append(a * sqrt(2))
        upper_imaginary.append(b * sqrt(2))
    return diagonal + upper_real + upper_imaginary, log_determinant
