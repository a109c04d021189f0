"""The kind of matrices whose rows are filters: demixing matrices, and the step that makes their rows better."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from vbss.hermitian import inverse_and_log_determinant, pack, pack_outer, unpack
from vbss.kinds import ReadKind


class Demixing(ReadKind):
    """Square complex matrices Q in which log p is n log|det Q|^2 - sum_m q_m A_m q_m^H, where q_m are Q's rows.

    One row after the other is set to its maximiser given the others, which never lowers log p, and stays only where log
    p has no gradient. Source: Ono, "Stable and fast update rules for independent vector analysis based on auxiliary
    function technique" (2011), "iterative projection".

    The unknown is an array of real numbers, (..., M, 2 M): the real parts of each row, then the imaginary parts.
    """

    claim: ClassVar[str] = "n log|det Q|^2 less a Hermitian form of each row, with Q being"
    is_exact: ClassVar[bool] = False

    @property
    def rank(self):
        return 2

    def coefficients(self, objective, value):
        size = value.shape[-2]
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        # Of t Q: n 2 M log t - t^2 sum_m q_m A_m q_m^H, of which the first two derivatives tell the parts apart.
        count = ((gradient - curvature) * value).sum((-2, -1)) / (4 * size)

        def forms(value: Array) -> Array:
            return (count * log_squared_determinants(value)).sum() - objective(value)

        _, product = jax.linearize(jax.grad(forms), value)
        # A row's form does not depend on the others, so that one direction serves all rows.
        directions = jnp.eye(2 * size, dtype=value.dtype).reshape(2 * size, *(1,) * (value.ndim - 1), 2 * size)
        columns = jax.vmap(product)(jnp.broadcast_to(directions, (2 * size, *value.shape)))
        form = jnp.moveaxis(columns, 0, -1) / 2
        (real, above), (below, again) = (
            jnp.split(half, 2, -1) for half in jnp.split(form, 2, -2)
        )  # [[Re A, Im A], [-Im A, Re A]]
        return {"count": count, "scatter": pack(jax.lax.complex((real + again) / 2, (above - below) / 2))}

    def form(self, coefficients, value):
        return _forms(coefficients["count"], coefficients["scatter"], value).sum()

    def mode(self, coefficients, value):
        return improved_rows(value, coefficients["count"], coefficients["scatter"])

    def perturbed(self, value, key):
        length = jnp.sqrt((value * value).mean(-1, keepdims=True))
        return value + length * jax.random.normal(key, value.shape, value.dtype) / 2

    def unconstrain(self, value):
        return value

    def constrain(self, unconstrained):
        return unconstrained


def complex_rows(value: Float[Array, "*batch m r"]) -> Complex[Array, "*batch m m"]:
    """Q itself."""
    return jax.lax.complex(*jnp.split(value, 2, -1))


def real_rows(matrix: Complex[Array, "*batch m m"]) -> Float[Array, "*batch m r"]:
    """The unknown that stands for Q."""
    return jnp.concatenate([matrix.real, matrix.imag], -1)


def heard_by_one(matrix: Complex[Array, "*batch m m"], row: int) -> Complex[Array, "*batch m"]:
    """The vector that all other rows map to 0: a column of Q^-1, but for its length.

    The conjugate of the row, less what lies in the span of the others'.
    """
    vectors = jnp.concatenate([matrix[..., :row, :], matrix[..., row + 1 :, :], matrix[..., row : row + 1, :]], -2)
    return _residuals(vectors.conj())[-1]


def inverse(matrix: Complex[Array, "*batch m m"]) -> Complex[Array, "*batch m m"]:
    """Q^-1."""
    columns = [heard_by_one(matrix, row) for row in range(matrix.shape[-1])]
    return jnp.stack([c / _product(matrix[..., m, :].conj(), c)[..., None] for m, c in enumerate(columns)], -1)


def log_squared_determinants(value: Float[Array, "*batch m r"]) -> Float[Array, "*batch"]:
    """log|det Q|^2."""
    residuals = _residuals(complex_rows(value))
    return jnp.stack([jnp.log(_energy(residual)) for residual in residuals]).sum(0)


def improved_rows(
    value: Float[Array, "*batch m r"], count: Float[Array, "*batch"], scatter: Float[Array, "*batch m p"]
) -> Float[Array, "*batch m r"]:
    """One sweep over the rows of n log|det Q|^2 - sum_m q_m A_m q_m^H.

    A matrix stays where nothing depends on it, or where rounding would make it worse.

    Args:
        value: Q, in the form of the unknown.
        count: n.
        scatter: the Hermitian A_m of each row, packed.
    """
    matrix, covariance = complex_rows(value), unpack(inverse_and_log_determinant(scatter)[0])
    for row in range(matrix.shape[-1]):
        column = heard_by_one(matrix, row)
        direction = jnp.einsum("...ij,...j->...i", covariance[..., row, :, :], column, precision="highest")
        scale = jnp.sqrt(count / _product(column, direction).real)[..., None].astype(direction.dtype)
        matrix = matrix.at[..., row, :].set((scale * direction).conj())
    improved = real_rows(matrix)
    is_better = _forms(count, scatter, improved) >= _forms(count, scatter, value)
    return jnp.where(is_better[..., None, None], improved, value)


def _forms(count: Array, scatter: Array, value: Array) -> Array:
    """What is maximised, of each matrix."""
    energy = (scatter * pack_outer(complex_rows(value).conj())).sum((-2, -1))
    return count * log_squared_determinants(value) - energy


def _residuals(vectors: Complex[Array, "*batch m m"]) -> list[Complex[Array, "*batch m"]]:
    """What each row has beside the span of those before it.

    By modified Gram-Schmidt, whose error grows with the rows' condition, not with its square.
    """
    residuals = [vectors[..., 0, :]]
    while vectors.shape[-2] > 1:
        unit = residuals[-1] * jax.lax.rsqrt(_energy(residuals[-1]))[..., None].astype(vectors.dtype)
        vectors = vectors[..., 1:, :]
        products = jnp.einsum("...i,...mi->...m", unit.conj(), vectors, precision="highest")
        vectors = vectors - products[..., None] * unit[..., None, :]
        residuals.append(vectors[..., 0, :])
    return residuals


def _energy(vector: Array) -> Array:
    return (vector.real**2 + vector.imag**2).sum(-1)


def _product(first: Array, second: Array) -> Array:
    return jnp.einsum("...i,...i->...", first.conj(), second, precision="highest")
