"""Constraints that NumPyro lacks: complex-valued supports, and logarithms of probabilities that may be zero."""

import jax.numpy as jnp
from numpyro.distributions.constraints import Constraint


class _HermitianPositiveDefinite(Constraint):
    event_dim = 2

    def __call__(self, x):
        # Rounding is relative to the matrix, not to its smallest entry.
        asymmetry = jnp.abs(x - jnp.conj(jnp.swapaxes(x, -1, -2))).max((-2, -1))
        hermitian = asymmetry <= 1e-5 * jnp.abs(x).max((-2, -1))
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


class _LogWeights(Constraint):
    event_dim = 1

    def __call__(self, x):
        return (x < jnp.inf).all(-1)  # nan is not

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)

    def tree_flatten(self):
        return (), ((), {})


hermitian_positive_definite = _HermitianPositiveDefinite()
complex_vector = _ComplexVector()
log_weights = _LogWeights()
