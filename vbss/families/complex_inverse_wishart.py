"""The complex inverse Wishart family of Hermitian covariance matrices."""

from math import isqrt, log, pi
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float

from vbss.distributions import ComplexInverseWishart as ComplexInverseWishartDistribution
from vbss.distributions.cholesky import squared
from vbss.families.base import Natural, StatisticsFamily
from vbss.families.gamma import Gamma
from vbss.families.wishart import bartlett_gammas, log_of_gap
from vbss.hermitian import inverse_and_log_determinant, pack, unpack

_STEP = 1.0  # between the concentrations of Bartlett's gammas


class ComplexInverseWishart(StatisticsFamily):
    """H Hermitian positive definite (*batch, M, M): log q = -tr(Psi H^-1) - (nu + M) log|H| - A.

    Natural parameters are `precision` -Psi, packed into real coordinates by `vbss.hermitian.pack` (*batch, M*M), and
    `log_determinant` -(nu + M) (*batch), nu > M - 1; statistics are the packed H^-1 and log|H|. Latents of
    `vbss.distributions.ComplexInverseWishart`.
    """

    def log_partition(self, natural):
        size, gammas = _gammas(natural)
        concentration = gammas["log"] + 1
        log_multigamma = size * (size - 1) / 2 * log(pi) + gammaln(concentration).sum(-1)
        return log_multigamma - concentration[..., -1] * inverse_and_log_determinant(-natural["precision"])[1]

    def means(self, natural):
        # Not by the gradient: that of the packed factorisation is long.
        concentration = _gammas(natural)[1]["log"] + 1
        inverse, log_determinant = inverse_and_log_determinant(-natural["precision"])
        mean_log = log_determinant - digamma(concentration).sum(-1)
        return {"precision": concentration[..., -1, None] * inverse, "log_determinant": mean_log}

    def natural(self, means):
        size = isqrt(means["precision"].shape[-1])
        inverse, log_determinant = inverse_and_log_determinant(means["precision"])
        nu = log_of_gap(-means["log_determinant"] - log_determinant, size, _STEP) + size
        return {"precision": -nu[..., None] * inverse, "log_determinant": -(nu + size)}

    def entropy(self, natural):
        # That of Bartlett's gammas and normals, through the Jacobian of the matrix and its inverse; their large parts
        # cancel in A - <eta, mean>.
        size, gammas = _gammas(natural)
        mean_logs = digamma(gammas["log"] + 1)
        jacobian = size * inverse_and_log_determinant(-natural["precision"])[1]
        jacobian = jacobian - sum(((2 * size - j) * mean_logs[..., j] for j in range(size)), jnp.zeros_like(jacobian))
        return Gamma().entropy(gammas).sum(-1) + jacobian + size * (size - 1) / 2 * (1 + log(pi))

    def kl(self, natural, other):
        (size, gammas), (_, other_gammas) = _gammas(natural), _gammas(other)
        inverse, log_determinant = inverse_and_log_determinant(-natural["precision"])
        log_ratio = log_determinant - inverse_and_log_determinant(-other["precision"])[1]
        trace = -(other["precision"] * inverse).sum(-1)
        nu, other_nu = gammas["log"][..., -1] + 1, other_gammas["log"][..., -1] + 1
        return nu * (trace - size) + other_nu * log_ratio + Gamma().kl(gammas, other_gammas).sum(-1)

    def sample(self, natural, key):
        return self.distribution(natural).sample(key)

    def mode(self, natural):
        return unpack(_packed_mode(natural))

    def mode_statistics(self, natural):
        precision, log_determinant = inverse_and_log_determinant(_packed_mode(natural))
        return {"precision": precision, "log_determinant": log_determinant}

    def perturbed(self, natural, key):
        # Psi within the frame of its Cholesky factor, and nu above M, with the mode kept in reach.
        key_frame, key_log = jax.random.split(key)
        order = -natural["log_determinant"]
        scale = unpack(-natural["precision"])
        size = scale.shape[-1]
        noise = jax.random.normal(key_frame, scale.shape, scale.dtype) / (2 * size**0.5)
        frame = jnp.linalg.cholesky(scale) @ (noise + jnp.broadcast_to(jnp.eye(size, dtype=scale.dtype), scale.shape))
        moved = 2 * size + jnp.maximum(order - 2 * size, 1) * jnp.exp(
            jax.random.normal(key_log, order.shape, order.dtype) / 2
        )
        precision = natural["precision"] / 4 - pack(squared(frame))
        return {"precision": (moved / order)[..., None] * precision, "log_determinant": -moved}

    def distribution(self, natural):
        nu = _gammas(natural)[1]["log"][..., -1] + 1
        return ComplexInverseWishartDistribution(nu, -natural["precision"])

    def natural_of(self, fn: Any):
        size = fn.event_shape[-1]
        packed = jnp.broadcast_to(fn.packed_scale, (*fn.batch_shape, size**2))
        return {
            "precision": -packed,
            "log_determinant": -jnp.broadcast_to(fn.degrees_of_freedom + size, fn.batch_shape),
        }


def _gammas(natural: Natural) -> tuple[int, Natural]:
    """M, and Bartlett's gammas of the inverse matrix; the last one's concentration is nu."""
    size = isqrt(natural["precision"].shape[-1])
    return size, bartlett_gammas(-natural["log_determinant"] - 2 * size, size, _STEP)


def _packed_mode(natural: Natural) -> Float[Array, "*batch p"]:
    """Psi / (nu + M)."""
    return natural["precision"] / natural["log_determinant"][..., None]
