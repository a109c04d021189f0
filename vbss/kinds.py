"""Kinds of point-valued unknowns: how the maximiser of E_q[log p] is read from its derivatives.

A kind is declared where the unknown is declared: in the annotation of a model's field,
`loc: Annotated[Array, Linear()]`, or in `vbss.point`. Each has one reading (one gradient, or a gradient and
Hessian-vector products) and a bijection to unconstrained reals for gradient algorithms.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import constraints

Objective = Callable[[Array], Array]


class Kind(eqx.Module):
    """What an unknown is, and so how the update v <- argmax_v E_q[log p(v)] is read off the program."""

    @abstractmethod
    def maximize(self, objective: Objective, value: Array) -> Array:
        """The maximiser of the objective, exact for programs in which the unknown enters as its kind says."""

    @property
    def support(self) -> constraints.Constraint:
        """What NumPyro's gradient algorithms must keep to; log-probabilities may lose their norm there."""
        return constraints.real

    @abstractmethod
    def unconstrain(self, value: Array) -> Array: ...

    @abstractmethod
    def constrain(self, unconstrained: Array) -> Array: ...


class Simplex(Kind):
    """Log-probabilities along the last axis; E_q[log p] is linear in them, with the expected counts as gradient."""

    def maximize(self, objective, value):
        counts = jax.grad(objective)(value)
        total = counts.sum(-1, keepdims=True)
        smallest = jnp.finfo(value.dtype).tiny
        log_probs = jnp.log(jnp.maximum(counts / jnp.maximum(total, smallest), smallest))
        return jnp.where(total > smallest, log_probs, value)

    def unconstrain(self, value):
        return value

    def constrain(self, unconstrained):
        return jax.nn.log_softmax(unconstrained, -1)


class Linear(Kind):
    """Real vectors in which E_q[log p] is quadratic, independently along the leading axes: one exact Newton step.

    Args:
        event_rank: number of trailing axes that belong to one vector (0: each entry on its own).
    """

    event_rank: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if self.event_rank < 0:
            raise ValueError(f"Linear: event_rank must not be negative, got {self.event_rank}")

    def maximize(self, objective, value):
        gradient, hessian = quadratic_coefficients(objective, value, self.event_rank)
        size = gradient.shape[-1]
        # A vector that nothing depends on (a component without mass) stays where it is.
        dead = jnp.diagonal(hessian, axis1=-2, axis2=-1).sum(-1, keepdims=True) == 0
        hessian = jnp.where(dead[..., None], jnp.broadcast_to(jnp.eye(size, dtype=value.dtype), hessian.shape), hessian)
        if size == 1:
            step = gradient / hessian[..., 0]
        else:
            factor = jnp.linalg.cholesky(hessian)
            step = jax.scipy.linalg.cho_solve((factor, True), gradient[..., None])[..., 0]
        return value + step.reshape(value.shape)

    def unconstrain(self, value):
        return value

    def constrain(self, unconstrained):
        return unconstrained


class Precision(Kind):
    """Positive scalars or symmetric positive definite matrices in which E_q[log p] is c2 log|P| + linear(P).

    Args:
        event_rank: 0 (scalars) or 2 (matrices).
    """

    event_rank: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if self.event_rank not in (0, 2):
            raise ValueError(f"Precision: event_rank must be 0 (scalars) or 2 (matrices), got {self.event_rank}")

    @property
    def support(self):
        return constraints.positive if self.event_rank == 0 else constraints.positive_definite

    def maximize(self, objective, value):
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        if self.event_rank == 0:
            # f = c2 log u + c1 u: f' + u f'' = c1 and -u^2 f'' = c2.
            reach = jnp.finfo(value.dtype).eps ** 0.5
            ratio = jnp.clip(curvature / (gradient + curvature), reach, 1 / reach)
            return jnp.where(curvature == 0, value, value * ratio)
        # f = n/2 log|P| - tr(P S)/2: the Hessian along P is -n/2 P^-1, and P <- n S^-1.
        half_scatter = -_symmetric(gradient + curvature)
        half_counts = -(_symmetric(curvature) * value).sum((-2, -1), keepdims=True) / value.shape[-1]
        identity = jnp.broadcast_to(jnp.eye(value.shape[-1], dtype=value.dtype), value.shape)
        dead = half_counts == 0  # a component without mass keeps its precision
        factor = jnp.linalg.cholesky(jnp.where(dead, identity, half_scatter))
        maximum = half_counts * _symmetric(jax.scipy.linalg.cho_solve((factor, True), identity))
        return jnp.where(dead, value, maximum)

    def unconstrain(self, value):
        if self.event_rank == 0:
            return jnp.log(value)
        factor = jnp.linalg.cholesky(value)
        return jnp.tril(factor, -1) + _diagonal(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))

    def constrain(self, unconstrained):
        if self.event_rank == 0:
            return jnp.exp(unconstrained)
        diagonal = _diagonal(jnp.exp(jnp.diagonal(unconstrained, axis1=-2, axis2=-1)))
        factor = jnp.tril(unconstrained, -1) + diagonal
        return factor @ jnp.swapaxes(factor, -1, -2)


class Variance(Kind):
    """Positive scalars in which E_q[log p] is -c2 log v - c1 / v, independently of each other."""

    def maximize(self, objective, value):
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        # f' = -c2/v + c1/v^2 and v f'' = c2/v - 2 c1/v^2, so c1/v^2 = -(f' + v f'') and c2/v = -(2 f' + v f'').
        # A far step is taken in several: beyond 1/sqrt(eps) the smaller of the two coefficients is lost to rounding.
        reach = jnp.finfo(value.dtype).eps ** 0.5
        is_flat = (gradient == 0) & (curvature == 0)  # nothing observed depends on it
        ratio = (gradient + curvature) / jnp.where(is_flat, 1, 2 * gradient + curvature)
        return jnp.where(is_flat, value, value * jnp.clip(ratio, reach, 1 / reach))

    @property
    def support(self):
        return constraints.positive

    def unconstrain(self, value):
        return jnp.log(value)

    def constrain(self, unconstrained):
        return jnp.exp(unconstrained)


def _diagonal(entries: Array) -> Array:
    """Diagonal matrices with the given entries."""
    identity = jnp.eye(entries.shape[-1], dtype=entries.dtype)
    return entries[..., None] * jnp.broadcast_to(identity, (*entries.shape, entries.shape[-1]))


def _symmetric(matrix: Array) -> Array:
    return (matrix + jnp.swapaxes(matrix, -1, -2)) / 2


def quadratic_coefficients(objective: Objective, value: Array, event_rank: int) -> tuple[Array, Array]:
    """Gradient (*batch, n) and negative Hessian (*batch, n, n), n the size of one event, by n Hessian-vector products.

    The objective must not couple different entries of the batch.
    """
    if value.ndim < event_rank:
        raise ValueError(f"event_rank {event_rank} needs as many axes, but the value has shape {value.shape}")
    batch = value.shape[: value.ndim - event_rank]
    size = int(np.prod(value.shape[value.ndim - event_rank :]))
    flat = value.reshape(*batch, size)
    gradient = jax.grad(lambda v: objective(v.reshape(value.shape)))
    if size == 1:
        at_value, column = jax.jvp(gradient, (flat,), (jnp.ones_like(flat),))
        return at_value, -column[..., None]
    directions = jnp.broadcast_to(
        jnp.eye(size, dtype=value.dtype).reshape(size, *(1,) * len(batch), size), (size, *flat.shape)
    )
    at_value, product = jax.linearize(gradient, flat)
    return at_value, -jnp.moveaxis(jax.vmap(product)(directions), 0, -1)
