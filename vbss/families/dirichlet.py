"""The Dirichlet family of probability vectors."""

from math import log
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln, logsumexp, polygamma
from jaxtyping import Array, Float

from vbss.context import relaxed_promotion
from vbss.families.base import Natural, PointFamily
from vbss.families.gamma import Gamma, digamma_minus_log

_NEWTON_STEPS = 8


class Dirichlet(PointFamily):
    """pi on the simplex (*batch, K), K >= 2: log q = sum_k (alpha_k - 1) log pi_k - A.

    The natural parameter is `log` alpha - 1 (*batch, K); the statistic is log pi, which is what the program reads:
    `vbss.indicator("z", jnp.log(pi))`. Its expectation is exact at one point, exp(E[log pi]), whose entries do not sum
    to one. In float32 the point reaches down to 1e-38, which is where alpha_k = 0.011 has it.
    """

    claim: ClassVar[str] = "linear in the logarithms of"

    def log_partition(self, natural):
        concentration = natural["log"] + 1
        return gammaln(concentration).sum(-1) - gammaln(concentration.sum(-1))

    def means(self, natural):
        concentration = natural["log"] + 1
        return {"log": digamma(concentration) - digamma(concentration.sum(-1, keepdims=True))}

    def natural(self, means):
        # alpha_k = digamma^-1(E[log pi_k] + digamma(total)) leaves one unknown, the total. Given it, sum_k alpha_k /
        # total falls from K to sum_k exp E[log pi_k] as the total grows, and its log-odds between the two are nearly
        # linear in log(total): Newton's method finds where it is 1.
        log_means = means["log"]
        size = log_means.shape[-1]
        log_shortfall = jnp.log(jnp.maximum(-jnp.expm1(logsumexp(log_means, -1)), jnp.finfo(log_means.dtype).eps))
        target = log_shortfall - log(size - 1)

        def concentrations(log_total: Array) -> Array:
            return _inverse_digamma(log_means + digamma(jnp.exp(log_total))[..., None])

        def log_odds(log_total: Array) -> Array:
            total, concentration = jnp.exp(log_total)[..., None], concentrations(log_total)
            share = concentration / total
            # share - exp E[log pi_k], without cancellation.
            excess = -share * jnp.expm1(digamma_minus_log(concentration) - digamma_minus_log(total))
            return jnp.log(excess.sum(-1)) - jnp.log((1 - share).sum(-1))

        def step(_, log_total: Array) -> Array:
            here, slope = jax.jvp(log_odds, (log_total,), (jnp.ones_like(log_total),))
            return log_total - (here - target) / slope

        start = log((size - 1) / 2) - log_shortfall  # of large totals
        return {"log": concentrations(jax.lax.fori_loop(0, _NEWTON_STEPS, step, start)) - 1}

    def entropy(self, natural):
        # Independent gammas are a Dirichlet vector and, independent of it, their sum.
        parts, total = _gammas(natural)
        size = natural["log"].shape[-1]
        mean_log_total = digamma(total["log"] + 1)
        return Gamma().entropy(parts).sum(-1) - Gamma().entropy(total) - (size - 1) * mean_log_total

    def kl(self, natural, other):
        (parts, total), (other_parts, other_total) = _gammas(natural), _gammas(other)
        return Gamma().kl(parts, other_parts).sum(-1) - Gamma().kl(total, other_total)

    def sample(self, natural, key):
        values = jax.random.dirichlet(key, natural["log"] + 1, dtype=natural["log"].dtype)
        return jnp.maximum(values, jnp.finfo(values.dtype).tiny)

    def mode(self, natural):
        excess = jnp.maximum(natural["log"], jnp.finfo(natural["log"].dtype).eps)
        return excess / excess.sum(-1, keepdims=True)

    def perturbed(self, natural, key):
        # Concentrations above 1: draws keep off the edges, where a logarithm drowns the others.
        log = natural["log"]
        return {"log": (log + 1) * jnp.exp(jax.random.normal(key, log.shape, log.dtype) / 2)}

    def distribution(self, natural):
        return dist.Dirichlet(natural["log"] + 1)

    def natural_of(self, fn: Any):
        with relaxed_promotion():
            return {"log": jnp.broadcast_to(fn.concentration, fn.shape()) - 1}

    def statistics(self, value):
        return {"log": jnp.log(value)}

    def initial(self, value):
        return {"log": jnp.zeros_like(value)}

    def points(self, natural):
        log_means = self.means(natural)["log"]
        return jnp.maximum(jnp.exp(log_means), jnp.finfo(log_means.dtype).tiny)[None]

    def coefficients(self, objective, value):
        return {"log": value * jax.grad(objective)(value)}

    def center(self, natural):
        # The mean, not the point: derivatives divide by its entries.
        concentration = natural["log"] + 1
        return concentration / concentration.sum(-1, keepdims=True)


def _gammas(natural: Natural) -> tuple[Natural, Natural]:
    """The gammas of rate 1 whose shares of their sum are the Dirichlet vector, and that of the sum."""
    log = natural["log"]
    total = (log + 1).sum(-1)
    return {"linear": -jnp.ones_like(log), "log": log}, {"linear": -jnp.ones_like(total), "log": total - 1}


def _inverse_digamma(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x > 0 with digamma(x) = value, once differentiable.

    Newton's method from Minka's start ("Estimating a Dirichlet distribution", 2000).
    """

    def step(x: Array, value: Array) -> Array:
        return x - (digamma(x) - value) / polygamma(1, x)

    goal = jax.lax.stop_gradient(value)
    start = jnp.where(goal > -2.22, jnp.exp(goal) + 0.5, -1 / (goal - digamma(jnp.ones_like(goal))))
    root = jax.lax.fori_loop(0, 4, lambda _, x: step(x, goal), start)
    return step(jax.lax.stop_gradient(root), value)  # the last step has the inverse's derivative
