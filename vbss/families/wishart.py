"""The Wishart family of real precision matrices, and what its complex counterpart shares with it."""

from math import log, pi, sqrt
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.families.base import Natural, PointFamily
from vbss.families.gamma import Gamma, digamma_minus_log

_NEWTON_STEPS = 7
_STEP = 0.5  # between the concentrations of Bartlett's gammas


class Wishart(PointFamily):
    """P positive definite (*batch, D, D): log q = -tr(S P) / 2 + (nu - D - 1) / 2 log|P| - A, of mean nu S^-1.

    Natural parameters are `linear` -S/2 (*batch, D, D), symmetric, and `log` (nu - D - 1) / 2 (*batch), nu > D - 1;
    statistics are P and log|P|. Latents of `numpyro.distributions.Wishart`, of concentration nu and rate matrix S.
    """

    claim: ClassVar[str] = "linear in the matrix and the log-determinant of"

    def log_partition(self, natural):
        size = natural["linear"].shape[-1]
        concentration = bartlett_gammas(natural["log"], size, _STEP)["log"] + 1
        log_multigamma = size * (size - 1) / 4 * log(pi) + gammaln(concentration).sum(-1)
        return log_multigamma - 2 * concentration[..., -1] * _half_log_determinant(_factor(natural))

    def means(self, natural):
        size = natural["linear"].shape[-1]
        factor = _factor(natural)
        concentration = bartlett_gammas(natural["log"], size, _STEP)["log"] + 1
        mean = concentration[..., -1, None, None] * _inverse(factor)
        return {"linear": mean, "log": digamma(concentration).sum(-1) - 2 * _half_log_determinant(factor)}

    def natural(self, means):
        size = means["linear"].shape[-1]
        factor = jnp.linalg.cholesky(means["linear"])
        gap = means["log"] - 2 * _half_log_determinant(factor)
        log = log_of_gap(gap, size, _STEP)
        concentration = bartlett_gammas(log, size, _STEP)["log"] + 1
        return {"linear": -concentration[..., -1, None, None] * _inverse(factor), "log": log}

    def entropy(self, natural):
        # That of Bartlett's gammas and normals, through the Jacobian of the matrix; their large parts cancel in
        # A - <eta, mean>.
        size = natural["linear"].shape[-1]
        gammas = bartlett_gammas(natural["log"], size, _STEP)
        mean_logs = digamma(gammas["log"] + 1)
        jacobian = sum((j * _STEP * mean_logs[..., j] for j in range(size)), jnp.zeros_like(natural["log"]))
        jacobian = jacobian - (size + 1) * _half_log_determinant(_factor(natural))
        return Gamma().entropy(gammas).sum(-1) + jacobian + size * (size - 1) / 4 * (1 + log(pi))

    def kl(self, natural, other):
        size = natural["linear"].shape[-1]
        gammas, other_gammas = (bartlett_gammas(member["log"], size, _STEP) for member in (natural, other))
        factor, other_factor = _factor(natural), _factor(other)
        ratio = solve_triangular(factor, other_factor, lower=True)
        half_log_ratio = _half_log_determinant(factor) - _half_log_determinant(other_factor)
        rates = (gammas["log"][..., -1] + 1) * ((ratio**2).sum((-2, -1)) - size)
        rates = rates + 2 * (other_gammas["log"][..., -1] + 1) * half_log_ratio
        return rates + Gamma().kl(gammas, other_gammas).sum(-1)

    def sample(self, natural, key):
        # Coloured by the factor C of S / 2 = C C'.
        return _squared(solve_triangular(_factor(natural), self.white_sample(natural, key), trans=1, lower=True))

    def white_sample(self, natural: Natural, key: Array) -> Float[Array, "*batch d d"]:
        """B, lower triangular, by Bartlett's construction: B B' is a draw of the member with S / 2 = I."""
        key_diagonal, key_lower = jax.random.split(key)
        linear = natural["linear"]
        gammas = bartlett_gammas(natural["log"], linear.shape[-1], _STEP)
        diagonal = jnp.sqrt(Gamma().sample(gammas, key_diagonal)[..., ::-1])
        lower = jnp.tril(jax.random.normal(key_lower, linear.shape, linear.dtype), -1) * sqrt(_STEP)
        return lower + _diagonal(diagonal)

    def mode(self, natural):
        log = jnp.maximum(natural["log"], jnp.finfo(natural["log"].dtype).eps)
        return log[..., None, None] * _inverse(_factor(natural))

    def perturbed(self, natural, key):
        # S within the frame of its Cholesky factor, and nu above D + 1, where draws are well conditioned, with the mean
        # kept in reach.
        key_frame, key_log = jax.random.split(key)
        factor, log = _factor(natural), natural["log"]
        size = factor.shape[-1]
        noise = jax.random.normal(key_frame, factor.shape, factor.dtype) / (2 * size**0.5)
        frame = factor @ (noise + jnp.broadcast_to(jnp.eye(size, dtype=factor.dtype), factor.shape))
        moved = (jnp.maximum(log, 0) + 1) * jnp.exp(jax.random.normal(key_log, log.shape, log.dtype) / 2)
        half = (size + 1) / 2
        scale = (moved + half) / (log + half)
        return {"linear": scale[..., None, None] * (natural["linear"] / 4 - _squared(frame)), "log": moved}

    def distribution(self, natural):
        size = natural["linear"].shape[-1]
        with relaxed_promotion():
            return dist.Wishart(2 * natural["log"] + size + 1, rate_matrix=-2 * natural["linear"])

    def natural_of(self, fn: Any):
        size = fn.event_shape[-1]
        with relaxed_promotion():
            linear = jnp.broadcast_to(-fn.rate_matrix / 2, fn.shape())
            return {"linear": linear, "log": jnp.broadcast_to((fn.concentration - size - 1) / 2, fn.batch_shape)}

    def statistics(self, value):
        return {"linear": value, "log": 2 * _half_log_determinant(jnp.linalg.cholesky(value))}

    def symmetric(self, value):
        return (value + jnp.swapaxes(value, -1, -2)) / 2

    def initial(self, value):
        # Of mean I.
        size = value.shape[-1]
        identity = jnp.broadcast_to(jnp.eye(size, dtype=value.dtype), value.shape)
        return {"linear": -(size + 1) / 2 * identity, "log": jnp.zeros(value.shape[:-2], value.dtype)}

    def points(self, natural):
        return self.scales(natural)[..., None, None] * self.center(natural)[None]

    def scales(self, natural: Natural) -> Float[Array, "2 *batch"]:
        """1 +- s: the points are E[P] (1 +- s), of the right mean log|P| with log(1 - s^2) = 2/D of its gap."""
        size = natural["linear"].shape[-1]
        log_product = 2 / size * log_determinant_gap(natural["log"], size, _STEP)
        above = 1 + jnp.sqrt(-jnp.expm1(log_product))
        # 1 - s, which cancels at small nu; bounded so that the matrix and its inverse exist in the number format.
        below = jnp.maximum(jnp.exp(log_product) / above, jnp.finfo(above.dtype).tiny ** 0.5)
        return jnp.stack([above, below])

    def coefficients(self, objective, value):
        # f = <N, P> + c log|P|: the gradient is N + c P^-1, and its derivative along P is -c P^-1.
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        curvature = _symmetric(curvature)
        log = -(curvature * value).sum((-2, -1)) / value.shape[-1]
        return {"linear": _symmetric(gradient) + curvature, "log": log}

    def center(self, natural):
        half = (natural["linear"].shape[-1] + 1) / 2
        return (natural["log"] + half)[..., None, None] * _inverse(_factor(natural))


def bartlett_gammas(log: Float[Array, "*batch"], size: int, step: float) -> Natural:
    """Independent gammas (*batch, D) of rate 1 whose product has the law of |P| where S / 2 = I (complex: Psi = I).

    Their concentrations rise from 1 + log by a step of 1/2 for real matrices and 1 for complex ones. The last one
    is the matrix's own: the mean over the inverse rate.
    """
    logs = jnp.stack([log + step * j for j in range(size)], -1)
    return {"linear": -jnp.ones_like(logs), "log": logs}


def log_determinant_gap(log: Float[Array, "*batch"], size: int, step: float) -> Float[Array, "*batch"]:
    """E log|P| - log|E[P]| < 0 of a Wishart matrix with these gammas (`bartlett_gammas`), without cancellation."""
    gap = digamma_minus_log(bartlett_gammas(log, size, step)["log"] + 1).sum(-1)
    last = log + 1 + step * (size - 1)
    return gap + sum((jnp.log1p(-step * j / last) for j in range(1, size)), jnp.zeros_like(gap))


def log_of_gap(gap: Float[Array, "*batch"], size: int, step: float) -> Float[Array, "*batch"]:
    """The inverse of `log_determinant_gap`.

    Newton's method for log(-gap) in the logarithm of the smallest concentration: it falls by nearly -1 at both ends.
    """
    target = jnp.log(jnp.maximum(-gap, jnp.finfo(gap.dtype).eps))

    def newton(_, log_smallest: Array) -> Array:
        def log_gap(log_smallest: Array) -> Array:
            return jnp.log(-log_determinant_gap(jnp.exp(log_smallest) - 1, size, step))

        here, slope = jax.jvp(log_gap, (log_smallest,), (jnp.ones_like(log_smallest),))
        return log_smallest - (here - target) / slope

    return jnp.exp(jax.lax.fori_loop(0, _NEWTON_STEPS, newton, -target)) - 1


def _factor(natural: Natural) -> Float[Array, "*batch d d"]:
    """The Cholesky factor of S / 2."""
    return jnp.linalg.cholesky(-natural["linear"])


def _half_log_determinant(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:
    return jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def _inverse(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """(C C')^-1, where the matrix itself is the result asked for."""
    identity = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return _symmetric(cho_solve((factor, True), identity))


def _diagonal(entries: Float[Array, "*batch d"]) -> Float[Array, "*batch d d"]:
    identity = jnp.eye(entries.shape[-1], dtype=entries.dtype)
    return entries[..., None] * jnp.broadcast_to(identity, (*entries.shape, entries.shape[-1]))


def _squared(matrix: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """A A'."""
    return matrix @ jnp.swapaxes(matrix, -1, -2)


def _symmetric(matrix: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    return (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
