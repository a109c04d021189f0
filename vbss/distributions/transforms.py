"""Bijections from real coordinates onto complex supports, so that NumPyro's guides and NUTS take complex latents.

Importing this module registers them with NumPyro's `biject_to`. Densities on complex spaces are densities in the real
and imaginary parts; those on Hermitian matrices are densities in (H_ii, Re H_ij, Im H_ij), i < j.
"""

from math import isqrt, log

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ComplexTransform, ComposeTransform, ParameterFreeTransform, biject_to

from vbss.distributions.cholesky import squared
from vbss.distributions.constraints import (
    complex_lower_cholesky,
    complex_scalar,
    complex_unit_vector,
    complex_vector,
    hermitian_positive_definite,
)
from vbss.errors import InputError


class ComplexScalarTransform(ComplexTransform):
    """(Re z, Im z), shape (*batch, 2), to z, shape (*batch,): NumPyro's own, but its log-determinant is real."""

    codomain = complex_scalar  # type: ignore[assignment]

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.zeros(x.shape[:-1], x.dtype)


class ComplexVectorTransform(ParameterFreeTransform):
    """[Re z, Im z], shape (*batch, 2 M), to z, shape (*batch, M)."""

    domain = constraints.real_vector  # type: ignore[assignment]
    codomain = complex_vector  # type: ignore[assignment]

    def __call__(self, x):
        size = self.forward_shape(x.shape)[-1]
        return jax.lax.complex(x[..., :size], x[..., size:])

    def _inverse(self, y):
        return jnp.concatenate([y.real, y.imag], -1)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return jnp.zeros(x.shape[:-1], x.dtype)

    def forward_shape(self, shape):
        if shape[-1] % 2:
            raise InputError(f"x must end in 2 M real coordinates of M complex numbers, got shape {shape}.")
        return (*shape[:-1], shape[-1] // 2)

    def inverse_shape(self, shape):
        return (*shape[:-1], 2 * shape[-1])


class ComplexLowerCholeskyTransform(ParameterFreeTransform):
    """[log L_ii, Re L_ij, Im L_ij], i > j row by row, shape (*batch, M*M), to L, shape (*batch, M, M)."""

    domain = constraints.real_vector  # type: ignore[assignment]
    codomain = complex_lower_cholesky  # type: ignore[assignment]

    def __call__(self, x):
        shape = self.forward_shape(x.shape)
        size = shape[-1]
        rows, columns = np.tril_indices(size, -1)
        index = np.arange(size)
        log_diagonal, real, imaginary = jnp.split(x, [size, size + len(rows)], -1)
        below, diagonal = jax.lax.complex(real, imaginary), jnp.exp(log_diagonal)
        lower = jnp.zeros(shape, below.dtype).at[..., rows, columns].set(below)
        return lower.at[..., index, index].set(jax.lax.complex(diagonal, jnp.zeros_like(diagonal)))

    def _inverse(self, y):
        rows, columns = np.tril_indices(y.shape[-1], -1)
        below = y[..., rows, columns]
        log_diagonal = jnp.log(jnp.diagonal(y, axis1=-2, axis2=-1).real)
        return jnp.concatenate([log_diagonal, below.real, below.imag], -1)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return x[..., : isqrt(x.shape[-1])].sum(-1)

    def forward_shape(self, shape):
        size = isqrt(shape[-1])
        if size**2 != shape[-1]:
            raise InputError(f"x must end in the M*M real coordinates of an M x M factor, got shape {shape}.")
        return (*shape[:-1], size, size)

    def inverse_shape(self, shape):
        return (*shape[:-2], shape[-1] ** 2)


class HermitianTransform(ParameterFreeTransform):
    """L, lower triangular with a positive diagonal, to H = L L^H, both of shape (*batch, M, M).

    dH = 2^M prod_i L_ii^(2 (M - i) + 1) dL, i = 1..M.
    """

    domain = complex_lower_cholesky  # type: ignore[assignment]
    codomain = hermitian_positive_definite  # type: ignore[assignment]

    def __call__(self, x):
        return squared(x)

    def _inverse(self, y):
        return jnp.linalg.cholesky(y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        size = x.shape[-1]
        log_diagonal = jnp.log(jnp.diagonal(x, axis1=-2, axis2=-1).real)
        powers = jnp.asarray(2 * (size - np.arange(1, size + 1)) + 1, log_diagonal.dtype)
        return size * log(2) + (jnp.broadcast_to(powers, log_diagonal.shape) * log_diagonal).sum(-1)


@biject_to.register(complex_scalar)
def _(constraint):
    return ComplexScalarTransform()


@biject_to.register(complex_vector)
def _(constraint):
    return ComplexVectorTransform()


@biject_to.register(complex_lower_cholesky)
def _(constraint):
    return ComplexLowerCholeskyTransform()


@biject_to.register(hermitian_positive_definite)
def _(constraint):
    return ComposeTransform([ComplexLowerCholeskyTransform(), HermitianTransform()])


@biject_to.register(complex_unit_vector)
def _(constraint):
    raise NotImplementedError(
        "the complex unit sphere has no bijection from real coordinates, so that no guide and no NUTS takes a latent "
        "on it: draw a ComplexMultivariateNormal and hand on its direction"
    )
