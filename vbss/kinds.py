"""Kinds of point-valued unknowns: how the maximiser of E_q[log p] is read from its derivatives.

A kind is declared where the unknown is declared: in the annotation of a model's field,
`loc: Annotated[Array, Linear()]`, or in `vbss.point`. Each has one reading (one gradient, or a gradient and
Hessian-vector products) and a bijection to unconstrained reals for gradient algorithms. What has no such reading is
maximised numerically (`vbss.Numerical`), or made better by a step that never falls (`vbss.Additive`).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import constraints

Objective = Callable[[Array], Array]
Coefficients = dict[str, Array]


class Kind(eqx.Module):
    """What an unknown is, and so how the update v <- argmax_v E_q[log p(v)] is found."""

    @abstractmethod
    def maximize(self, objective: Objective, value: Array) -> Array:
        """The maximiser of the objective, or a better value where there is no more to be had."""

    @abstractmethod
    def perturbed(self, value: Array, key: Array) -> Array:
        """Another admissible value, at random about this one: where probes look."""

    @property
    def support(self) -> constraints.Constraint:
        """What NumPyro's gradient algorithms must keep to; log-probabilities may lose their norm there."""
        return constraints.real

    @abstractmethod
    def unconstrain(self, value: Array) -> Array: ...

    @abstractmethod
    def constrain(self, unconstrained: Array) -> Array: ...


class ReadKind(Kind):
    """Unknowns whose maximiser is read: E_q[log p] is linear in a few statistics of them.

    The statistics' coefficients are read from derivatives at any value, and the maximiser follows from them. A
    conjugate prior that the program states about the unknown adds its pseudo-counts to the same coefficients.

    Attributes:
        claim: what E_q[log p] must be in the unknown, as in "quadratic in", for messages.
        is_exact: whether `mode` is the maximiser, or only a better value.
    """

    claim: ClassVar[str]
    is_exact: ClassVar[bool] = True

    @property
    @abstractmethod
    def rank(self) -> int:
        """The number of trailing axes that belong to one unknown."""

    @abstractmethod
    def coefficients(self, objective: Objective, value: Array) -> Coefficients:
        """The coefficients of the unknown's statistics in the objective, read from its derivatives at a value."""

    @abstractmethod
    def form(self, coefficients: Coefficients, value: Array) -> Array:
        """What the objective is, up to a constant, if the unknown enters as its kind says."""

    @abstractmethod
    def mode(self, coefficients: Coefficients, value: Array) -> Array:
        """The maximiser of `form`, or what `is_exact` says; an entry that nothing depends on keeps the given value."""

    def maximize(self, objective, value):
        return self.mode(self.coefficients(objective, value), value)


class Simplex(ReadKind):
    """Log-probabilities along the last axis; E_q[log p] is linear in them, with the expected counts as gradient."""

    claim: ClassVar[str] = "linear in the log-probabilities"

    @property
    def rank(self):
        return 1

    def coefficients(self, objective, value):
        return {"counts": jax.grad(objective)(value)}

    def form(self, coefficients, value):
        return (coefficients["counts"] * value).sum()

    def mode(self, coefficients, value):
        counts = coefficients["counts"]
        total = counts.sum(-1, keepdims=True)
        smallest = jnp.finfo(value.dtype).tiny
        log_probs = jnp.log(jnp.maximum(counts / jnp.maximum(total, smallest), smallest))
        return jnp.where(total > smallest, log_probs, value)

    def perturbed(self, value, key):
        return jax.nn.log_softmax(jax.random.normal(key, value.shape, value.dtype), -1)

    def unconstrain(self, value):
        return value

    def constrain(self, unconstrained):
        return jax.nn.log_softmax(unconstrained, -1)


class Linear(ReadKind):
    """Real vectors in which E_q[log p] is quadratic, independently along the leading axes: one exact Newton step.

    Args:
        event_rank: number of trailing axes that belong to one vector (0: each entry on its own).
    """

    event_rank: int = eqx.field(static=True, default=0)
    claim: ClassVar[str] = "quadratic in"

    @property
    def rank(self):
        return self.event_rank

    def __check_init__(self):
        if self.event_rank < 0:
            raise ValueError(f"Linear: event_rank must not be negative, got {self.event_rank}")

    def coefficients(self, objective, value):
        gradient, precision = quadratic_coefficients(objective, value, self.event_rank)
        return {"linear": gradient + _times(precision, value.reshape(gradient.shape)), "precision": precision}

    def form(self, coefficients, value):
        flat = value.reshape(coefficients["linear"].shape)
        return (flat * (coefficients["linear"] - _times(coefficients["precision"], flat) / 2)).sum()

    def mode(self, coefficients, value):
        linear, precision = coefficients["linear"], coefficients["precision"]
        flat = value.reshape(linear.shape)
        gradient = linear - _times(precision, flat)
        size = gradient.shape[-1]
        # A vector that nothing depends on (a component without mass) stays where it is.
        dead = jnp.diagonal(precision, axis1=-2, axis2=-1).sum(-1, keepdims=True) == 0
        identity = jnp.broadcast_to(jnp.eye(size, dtype=value.dtype), precision.shape)
        precision = jnp.where(dead[..., None], identity, precision)
        if size == 1:
            step = gradient / precision[..., 0]
        else:
            factor = jnp.linalg.cholesky(precision)
            step = jax.scipy.linalg.cho_solve((factor, True), gradient[..., None])[..., 0]
        return (flat + jnp.where(dead, 0, step)).reshape(value.shape)

    def perturbed(self, value, key):
        return value + (1 + jnp.abs(value)) * jax.random.normal(key, value.shape, value.dtype) / 2

    def unconstrain(self, value):
        return value

    def constrain(self, unconstrained):
        return unconstrained


class Precision(ReadKind):
    """Positive scalars or symmetric positive definite matrices in which E_q[log p] is c2 log|P| + linear(P).

    Args:
        event_rank: 0 (scalars) or 2 (matrices).
    """

    event_rank: int = eqx.field(static=True, default=0)
    claim: ClassVar[str] = "linear in the value and the log-determinant of"

    @property
    def rank(self):
        return self.event_rank

    def __check_init__(self):
        if self.event_rank not in (0, 2):
            raise ValueError(f"Precision: event_rank must be 0 (scalars) or 2 (matrices), got {self.event_rank}")

    @property
    def support(self):
        return constraints.positive if self.event_rank == 0 else constraints.positive_definite

    def coefficients(self, objective, value):
        # f = c2 log|P| + <C1, P>: the gradient is c2 P^-1 + C1, and its derivative along P is -c2 P^-1.
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        if self.event_rank == 0:
            return {"linear": gradient + curvature, "log": -value * curvature}
        curvature = _symmetric(curvature)
        log = -(curvature * value).sum((-2, -1)) / value.shape[-1]
        return {"linear": _symmetric(gradient) + curvature, "log": log}

    def form(self, coefficients, value):
        linear, log = coefficients["linear"], coefficients["log"]
        if self.event_rank == 0:
            return (linear * value + log * jnp.log(value)).sum()
        factor = jnp.linalg.cholesky(value)
        half_log_determinant = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        return (linear * value).sum() + 2 * (log * half_log_determinant).sum()

    def mode(self, coefficients, value):
        linear, log = coefficients["linear"], coefficients["log"]
        if self.event_rank == 0:
            # A far step is taken in several: beyond 1/sqrt(eps) the smaller coefficient is lost to rounding.
            reach = jnp.finfo(value.dtype).eps ** 0.5
            dead = log == 0
            ratio = log / jnp.where(dead, 1, -linear * value)
            return jnp.where(dead, value, value * jnp.clip(ratio, reach, 1 / reach))
        identity = jnp.broadcast_to(jnp.eye(value.shape[-1], dtype=value.dtype), value.shape)
        dead = (log == 0)[..., None, None]  # a component without mass keeps its precision
        factor = jnp.linalg.cholesky(jnp.where(dead, identity, -linear))
        maximum = log[..., None, None] * _symmetric(jax.scipy.linalg.cho_solve((factor, True), identity))
        return jnp.where(dead, value, maximum)

    def perturbed(self, value, key):
        if self.event_rank == 0:
            return value * jnp.exp(jax.random.normal(key, value.shape, value.dtype))
        size = value.shape[-1]
        noise = jax.random.normal(key, value.shape, value.dtype) / (2 * size**0.5)
        root = jnp.linalg.cholesky(value) @ (noise + jnp.broadcast_to(jnp.eye(size, dtype=value.dtype), value.shape))
        return _symmetric(root @ jnp.swapaxes(root, -1, -2)) + value / 4

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


class Variance(ReadKind):
    """Positive scalars in which E_q[log p] is -c2 log v - c1 / v, independently of each other."""

    claim: ClassVar[str] = "linear in the inverse and the logarithm of"

    @property
    def rank(self):
        return 0

    def coefficients(self, objective, value):
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        # f' = -c2/v + c1/v^2 and v f'' = c2/v - 2 c1/v^2, so c1/v^2 = -(f' + v f'') and c2/v = -(2 f' + v f'').
        return {"inverse": -(gradient + curvature) * value * value, "log": -(2 * gradient + curvature) * value}

    def form(self, coefficients, value):
        return -(coefficients["log"] * jnp.log(value) + coefficients["inverse"] / value).sum()

    def mode(self, coefficients, value):
        is_flat = (coefficients["log"] == 0) & (coefficients["inverse"] == 0)  # nothing observed depends on it
        return self._reached(coefficients["inverse"] / value, coefficients["log"], is_flat, value)

    def maximize(self, objective, value):
        # As `mode` of `coefficients`, without the square of a value, which float32 may not hold.
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        is_flat = (gradient == 0) & (curvature == 0)
        return self._reached(gradient + curvature, 2 * gradient + curvature, is_flat, value)

    def _reached(self, numerator: Array, denominator: Array, is_flat: Array, value: Array) -> Array:
        # A far step is taken in several: beyond 1/sqrt(eps) the smaller of the two coefficients is lost to rounding.
        reach = jnp.finfo(value.dtype).eps ** 0.5
        ratio = numerator / jnp.where(is_flat, 1, denominator)
        return jnp.where(is_flat, value, value * jnp.clip(ratio, reach, 1 / reach))

    def perturbed(self, value, key):
        return value * jnp.exp(jax.random.normal(key, value.shape, value.dtype))

    @property
    def support(self):
        return constraints.positive

    def unconstrain(self, value):
        return jnp.log(value)

    def constrain(self, unconstrained):
        return jnp.exp(unconstrained)


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector)


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
