"""The kind of unknowns in which a covariance is linear: spectra and spatial covariances of sources that add up."""

from math import isqrt
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from vbss.context import relaxed_promotion
from vbss.distributions.constraints import hermitian_positive_definite, packed_hermitian_positive_definite
from vbss.errors import InputError, whole_number
from vbss.hermitian import inverse_and_log_determinant, inverse_entries, pack, packed_identity, unpack
from vbss.kinds import Kind

_MEAN_STEPS = 16  # enough for eigenvalues that are 1e9 times apart; the step that uses it never goes downhill


class Additive(Kind):
    """Unknowns in which log p is -log|S| - tr(S^-1 X), with S linear in them: one majorise-minimise step.

    S is homogeneous (twice the unknown is twice S), and positive semidefinite for each entry or matrix by itself. At
    the present value, f = log p has the gradient `fit` - `cost`: of -tr(S^-1 X) and of -log|S|. As S is homogeneous,
    the gradient at c times the value is fit / c^2 - cost / c, so that its derivative along the value tells the two
    apart. -log|S| is above its tangent and tr(S^-1 X) below a sum of inverses, so that f is above

        -fit v^2 / u - cost u,    or for matrices    -tr(V fit V U^-1) - tr(cost U),

    up to a constant, and equal at u = v. Its maximiser never lowers f, and stays only where f has no gradient.
    Source: Sawada, Kameoka, Araki and Ueda, "Multichannel extensions of non-negative matrix factorization with
    complex-valued data" (2013).

    Args:
        event_rank: 0 (non-negative scalars) or 1 (Hermitian positive definite matrices, packed along the last axis as
            by `vbss.hermitian.pack`).
        held: of scalars, how many of the first along the last axis stay as they are: with them S is homogeneous, but
            they are known.
    """

    event_rank: int = eqx.field(static=True, default=0)
    held: int = eqx.field(static=True, default=0)
    claim: ClassVar[str] = "-log|S| - tr(S^-1 X) with a covariance S proportional to"

    def __check_init__(self):
        if self.event_rank not in (0, 1):
            raise InputError(f"Additive: event_rank must be 0 (scalars) or 1 (packed matrices), got {self.event_rank}")
        whole_number("Additive: held", self.held, 0)
        if self.held and self.event_rank:
            raise InputError("Additive: held is for scalars, event_rank 0")

    @property
    def support(self):
        return constraints.positive if self.event_rank == 0 else packed_hermitian_positive_definite

    def maximize(self, objective, value):
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        fit, cost = -(gradient + curvature), -(2 * gradient + curvature)
        if self.event_rank == 0:
            improved = improved_scalars(value, jnp.maximum(fit, 0), cost)
            return jnp.concatenate([value[..., : self.held], improved[..., self.held :]], -1) if self.held else improved
        return improved_matrices(value, fit, cost)

    def perturbed(self, value, key):
        if self.event_rank == 0:
            moved = value * jnp.exp(jax.random.normal(key, value.shape, value.dtype))
            return moved.at[..., : self.held].set(value[..., : self.held]) if self.held else moved
        size = isqrt(value.shape[-1])
        matrix = unpack(value)
        noise = jax.random.normal(key, matrix.shape, matrix.dtype) / (2 * size**0.5)
        root = jnp.linalg.cholesky(matrix) @ (noise + jnp.broadcast_to(jnp.eye(size, dtype=matrix.dtype), matrix.shape))
        return pack(root @ jnp.swapaxes(root, -1, -2).conj()) + value / 4

    def unconstrain(self, value):
        if self.event_rank == 0:
            return jnp.log(value)
        with relaxed_promotion():
            return biject_to(hermitian_positive_definite).inv(unpack(value))

    def constrain(self, unconstrained):
        if self.event_rank == 0:
            return jnp.exp(unconstrained)
        with relaxed_promotion():
            return pack(biject_to(hermitian_positive_definite)(unconstrained))


def improved_scalars(
    value: Float[Array, "*shape"], fit: Float[Array, "*shape"], cost: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The maximisers of -fit v^2 / u - cost u; an entry on which nothing depends stays.

    A fit is often a difference of costs, known no better than by their rounding: that it is less counts for nothing, or
    an entry could fall in one step far below where it should be. No entry falls below the root of the smallest normal
    number, so that products of two stay positive; one that was zero before stays zero.
    """
    is_dead = cost <= 0
    least = jnp.finfo(value.dtype).eps
    ratio = jnp.sqrt(jnp.where(is_dead, 1, jnp.maximum(fit / jnp.where(is_dead, 1, cost), least)))
    return jnp.where(value == 0, 0, jnp.maximum(value * ratio, jnp.finfo(value.dtype).tiny ** 0.5))


def improved_matrices(
    value: Float[Array, "*batch p"], fit: Float[Array, "*batch p"], cost: Float[Array, "*batch p"]
) -> Float[Array, "*batch p"]:
    """The maximisers of -tr(V fit V U^-1) - tr(cost U), which solve U cost U = V fit V; all packed.

    A matrix stays where nothing depends on it, or where rounding would make it worse. What should be singular keeps
    eigenvalues that rounding does not swallow.
    """
    size = isqrt(value.shape[-1])
    identity = jnp.broadcast_to(packed_identity(size, value.dtype), value.shape)
    is_dead = (cost[..., :size].sum(-1) <= 0)[..., None]
    matrix = unpack(value)
    target = pack(jnp.einsum("...ij,...jk,...kl->...il", matrix, unpack(fit), matrix, precision="highest"))
    least = jnp.finfo(value.dtype).eps ** 0.75 * target[..., :size].mean(-1, keepdims=True)
    inverse, _ = inverse_and_log_determinant(jnp.where(is_dead, identity, cost))
    improved = geometric_mean(inverse, jnp.where(is_dead, identity, target + least * identity))
    improved_inverse, _ = inverse_and_log_determinant(improved)
    before = ((fit + cost) * value).sum(-1, keepdims=True)
    after = (target * improved_inverse + cost * improved).sum(-1, keepdims=True)
    return jnp.where((after <= before) & ~is_dead, improved, value)


def geometric_mean(first: Float[Array, "*batch p"], second: Float[Array, "*batch p"]) -> Float[Array, "*batch p"]:
    """A # B = A^1/2 (A^-1/2 B A^-1/2)^1/2 A^1/2 of packed Hermitian positive definite matrices: U with U A^-1 U = B.

    By repeated arithmetic and harmonic means, which have the same geometric mean: every step brings the two four times
    nearer, and in the end doubles the digits.
    """
    size = isqrt(first.shape[-1])
    entries, others = ([packed[..., p] for p in range(packed.shape[-1])] for packed in (first, second))
    inverse, log_determinant = inverse_entries(entries)
    other_inverse, other_log_determinant = inverse_entries(others)
    scale = jnp.exp((other_log_determinant - log_determinant) / (2 * size))

    def mean(these: list[Array], those: list[Array]) -> list[Array]:
        return [(a + b) / 2 for a, b in zip(these, those, strict=True)]

    def step(_, pair: tuple[list[Array], list[Array]]) -> tuple[list[Array], list[Array]]:
        high, low_inverse = pair
        return mean(high, inverse_entries(low_inverse)[0]), mean(inverse_entries(high)[0], low_inverse)

    high = mean([a * scale for a in entries], [b / scale for b in others])
    low_inverse = mean([a / scale for a in inverse], [b * scale for b in other_inverse])
    return jnp.stack(jax.lax.fori_loop(0, _MEAN_STEPS, step, (high, low_inverse))[0], -1)
