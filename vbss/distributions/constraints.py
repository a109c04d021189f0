"""Constraints that NumPyro lacks: complex-valued supports, and logarithms of probabilities that may be zero.

`vbss.distributions.transforms` maps real coordinates onto those that a latent variable may have.
"""

from math import isqrt

import jax.numpy as jnp
from numpyro.distributions.constraints import ParameterFreeConstraint

from vbss.hermitian import packed_identity, unpack


class _ComplexScalar(ParameterFreeConstraint):
    event_dim = 0

    def __call__(self, x):
        return jnp.isfinite(x)

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)


class _ComplexVector(ParameterFreeConstraint):
    event_dim = 1

    def __call__(self, x):
        return jnp.isfinite(x).all(-1)

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)


class _ComplexUnitVector(ParameterFreeConstraint):
    event_dim = 1

    def __call__(self, x):
        norm = jnp.linalg.norm(x, axis=-1)
        return jnp.abs(norm - 1) < 10 * jnp.finfo(norm.dtype).eps * x.shape[-1] ** 0.5

    def feasible_like(self, prototype):
        return jnp.full_like(prototype, prototype.shape[-1] ** -0.5)


class _ComplexLowerCholesky(ParameterFreeConstraint):
    event_dim = 2

    def __call__(self, x):
        diagonal = jnp.diagonal(x, axis1=-2, axis2=-1)
        return (x == jnp.tril(x)).all((-2, -1)) & ((diagonal.real > 0) & (diagonal.imag == 0)).all(-1)

    def feasible_like(self, prototype):
        return jnp.broadcast_to(jnp.eye(prototype.shape[-1], dtype=prototype.dtype), prototype.shape)


class _HermitianPositiveDefinite(ParameterFreeConstraint):
    event_dim = 2

    def __call__(self, x):
        # Rounding is relative to the matrix, not to its smallest entry.
        asymmetry = jnp.abs(x - jnp.conj(jnp.swapaxes(x, -1, -2))).max((-2, -1))
        hermitian = asymmetry <= 1e-5 * jnp.abs(x).max((-2, -1))
        return hermitian & (jnp.linalg.eigvalsh(x)[..., 0] > 0)

    def feasible_like(self, prototype):
        return jnp.broadcast_to(jnp.eye(prototype.shape[-1], dtype=prototype.dtype), prototype.shape)


class _PackedHermitianPositiveDefinite(ParameterFreeConstraint):
    event_dim = 1

    def __call__(self, x):
        return jnp.linalg.eigvalsh(unpack(x))[..., 0] > 0

    def feasible_like(self, prototype):
        return jnp.broadcast_to(packed_identity(isqrt(prototype.shape[-1]), prototype.dtype), prototype.shape)


class _LogWeights(ParameterFreeConstraint):
    event_dim = 1

    def __call__(self, x):
        return (x < jnp.inf).all(-1)  # nan is not

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)


complex_scalar = _ComplexScalar()
complex_vector = _ComplexVector()
complex_unit_vector = _ComplexUnitVector()
complex_lower_cholesky = _ComplexLowerCholesky()
hermitian_positive_definite = _HermitianPositiveDefinite()
packed_hermitian_positive_definite = _PackedHermitianPositiveDefinite()
log_weights = _LogWeights()
