"""The gamma family of positive scalars."""

from math import log, pi
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln, polygamma
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.families.base import PointFamily

_LARGE = 10.0  # beyond, the asymptotic series are exact to rounding, and more exact than differences of logarithms
_NEWTON_STEPS = 6


class Gamma(PointFamily):
    """u > 0 of concentration a and rate b: log q = -b u + (a - 1) log u - A, each entry of the batch on its own.

    Natural parameters are `linear` -b and `log` a - 1; statistics are u and log u.
    """

    claim: ClassVar[str] = "linear in the value and the logarithm of"

    def log_partition(self, natural):
        concentration = natural["log"] + 1
        return gammaln(concentration) - concentration * jnp.log(-natural["linear"])

    def means(self, natural):
        mean = self.center(natural)
        return {"linear": mean, "log": jnp.log(mean) + digamma_minus_log(natural["log"] + 1)}

    def natural(self, means):
        # log a - digamma(a) = log E[u] - E[log u]: Newton in 1/a, which converges from this start for every gap
        # (Minka, "Estimating a gamma distribution", 2002).
        mean = means["linear"]
        gap = jnp.maximum(jnp.log(mean) - means["log"], jnp.finfo(mean.dtype).eps)
        start = (3 - gap + jnp.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)

        def step(_, concentration):
            residual = -digamma_minus_log(concentration) - gap
            return concentration / (1 + residual / _slope(concentration))

        concentration = jax.lax.fori_loop(0, _NEWTON_STEPS, step, start)
        return {"linear": -concentration / mean, "log": concentration - 1}

    def entropy(self, natural):
        # a + log Gamma(a) + (1 - a) digamma(a) - log b, with Stirling's part of every term collected.
        a, b = natural["log"] + 1, -natural["linear"]
        return jnp.log(2 * pi * a) / 2 + _stirling_error(a) + (1 - a) * digamma_minus_log(a) - jnp.log(b)

    def kl(self, natural, other):
        # With Stirling's part of every term collected, nothing of the size of a log a is left to cancel.
        a, c = natural["log"] + 1, other["log"] + 1
        excess = (a * other["linear"]) / (c * natural["linear"]) - 1  # the ratio of the means, less 1
        rest = _stirling_error(c) - _stirling_error(a) + (a - c) * digamma_minus_log(a)
        return c * _minus_log1p(excess) + jnp.log(a / c) / 2 + rest

    def sample(self, natural, key):
        concentration = natural["log"] + 1
        log_draw = jax.random.loggamma(key, concentration, dtype=concentration.dtype) - jnp.log(-natural["linear"])
        # Draws of a small concentration may be too small for the number format; zero is no value of the family.
        return jnp.maximum(jnp.exp(log_draw), jnp.finfo(log_draw.dtype).tiny)

    def mode(self, natural):
        return jnp.maximum(natural["log"], jnp.finfo(natural["log"].dtype).eps) / -natural["linear"]

    def perturbed(self, natural, key):
        noise = jnp.exp(jax.random.normal(key, (2, *natural["log"].shape), natural["log"].dtype) / 2)
        return {"linear": natural["linear"] * noise[0], "log": (natural["log"] + 1) * noise[1] - 1}

    def distribution(self, natural):
        return dist.Gamma(natural["log"] + 1, -natural["linear"])

    def natural_of(self, fn: Any):
        with relaxed_promotion():
            concentration, rate = (jnp.broadcast_to(p, fn.batch_shape) for p in (fn.concentration, fn.rate))
        return {"linear": -rate, "log": concentration - 1}

    def statistics(self, value):
        return {"linear": value, "log": jnp.log(value)}

    def initial(self, value):
        return {"linear": -1 / jnp.maximum(value, jnp.finfo(value.dtype).tiny), "log": jnp.zeros_like(value)}

    def probed(self, natural, key):
        # Draws near zero hide the coefficient of u behind that of log u.
        return self.center(self.perturbed(natural, key))

    def points(self, natural):
        # E[u](1 +- s) has the mean of u, and of log u when log(1 - s^2) = 2 (E[log u] - log E[u]).
        log_product = 2 * digamma_minus_log(natural["log"] + 1)
        above = 1 + jnp.sqrt(-jnp.expm1(log_product))
        below = jnp.exp(log_product) / above  # 1 - s, which cancels at small concentrations
        mean = self.center(natural)
        return jnp.stack([mean * above, mean * below])

    def coefficients(self, objective, value):
        # f = c1 u + c2 log u: f' + u f'' = c1 and -u^2 f'' = c2.
        gradient, curvature = jax.jvp(jax.grad(objective), (value,), (value,))
        return {"linear": gradient + curvature, "log": -value * curvature}

    def center(self, natural):
        return (natural["log"] + 1) / -natural["linear"]


def digamma_minus_log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """digamma(x) - log(x) < 0, by its asymptotic series beyond 10, where the difference is lost to rounding."""
    large = jnp.maximum(x, _LARGE)
    y = large**-2
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132 - y * 691 / 32760)))))
    return jnp.where(x > _LARGE, -1 / (2 * large) - series, digamma(x) - jnp.log(x))


def _slope(x: Array) -> Array:
    """1 - x trigamma(x) < 0: the derivative of log(x) - digamma(x) in log(x)."""
    large = jnp.maximum(x, _LARGE)
    y = large**-2
    series = y * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66))))
    return jnp.where(x > _LARGE, -1 / (2 * large) - series, 1 - x * polygamma(1, x))


def _stirling_error(x: Array) -> Array:
    """log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2 > 0."""
    large = jnp.maximum(x, _LARGE)
    y = large**-2
    series = 1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y * (1 / 1188 - y * 691 / 360360))))
    return jnp.where(x > _LARGE, series / large, gammaln(x) - (x - 0.5) * jnp.log(x) + x - log(2 * pi) / 2)


def _minus_log1p(x: Array) -> Array:
    """x - log(1 + x) >= 0, by its series about 0."""
    near = jnp.clip(x, -0.02, 0.02)
    series = near**2 * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5 - near * (1 / 6 - near * (1 / 7))))))
    return jnp.where(jnp.abs(x) < 0.02, series, x - jnp.log1p(x))
