"""Linear algebra of complex Cholesky factors, which the densities and draws of this package share."""

from math import prod

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Complex, Float


def adjoint(matrix: Complex[Array, "*batch m n"]) -> Complex[Array, "*batch n m"]:
    """The conjugate transpose."""
    return jnp.conj(jnp.swapaxes(matrix, -1, -2))


def squared(factor: Complex[Array, "*batch m n"]) -> Complex[Array, "*batch m m"]:
    """A A^H."""
    return jnp.matmul(factor, adjoint(factor), precision="highest")


def log_determinant(factor: Complex[Array, "*batch m m"]) -> Float[Array, "*batch"]:
    """log|L L^H| of a lower triangular L with a positive diagonal."""
    return 2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1).real).sum(-1)


def factor_of_inverse(matrix: Complex[Array, "*batch m m"]) -> Complex[Array, "*batch m m"]:
    """The Cholesky factor of a Hermitian positive definite matrix's inverse, without that inverse.

    Factorised from its last row upwards the matrix is U U^H, U upper triangular: U^-H is the factor of its inverse.
    """
    upper = jnp.linalg.cholesky(matrix[..., ::-1, ::-1])[..., ::-1, ::-1]
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    return solve_triangular(adjoint(upper), identity, lower=True)


def quadratic_form(factor: Complex[Array, "*batch m m"], vector: Complex[Array, "*shape m"]) -> Float[Array, "*shape"]:
    """x^H (L L^H)^-1 x = |L^-1 x|^2; the batch must broadcast to the shape of the vectors.

    The vectors' leading axes that the factor lacks become columns of one solve, so that no factor is copied for them.
    """
    *shape, size = vector.shape
    num_columns = len(shape) - (factor.ndim - 2)
    batch = shape[num_columns:]
    columns = jnp.moveaxis(vector.reshape(prod(shape[:num_columns]), *batch, size), 0, -1)
    whitened = solve_triangular(jnp.broadcast_to(factor, (*batch, size, size)), columns, lower=True)
    power = (whitened.real**2 + whitened.imag**2).sum(-2)
    return jnp.moveaxis(power, -1, 0).reshape(shape)
