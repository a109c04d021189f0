"""Constraints of complex-valued supports, which NumPyro lacks."""

import jax.numpy as jnp
from numpyro.distributions.constraints import Constraint


class _HermitianPositiveDefinite(Constraint):
    event_dim = 2

    def __call__(self, x):
        hermitian = jnp.isclose(x, jnp.conj(jnp.swapaxes(x, -1, -2)), rtol=1e-5, atol=0.0).all((-2, -1))
        return hermitian & (jnp.linalg.eigvalsh(x)[..., 0] > 0)

    def feasible_like(self, prototype):
        return jnp.broadcast_to(jnp.eye(prototype.shape[-1], dtype=prototype.dtype), prototype.shape)

    def tree_flatten(self):
        return (), ((), {})


class _ComplexVector(Constraint):
    event_dim = 1

    def __call__(self, x):
        return jnp.isfinite(x).all(-1)

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)

    def tree_flatten(self):
        return (), ((), {})


hermitian_positive_definite = _HermitianPositiveDefinite()
complex_vector = _ComplexVector()
