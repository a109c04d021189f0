"""Iterations of EM as one derives and writes them by hand: the measure of what derived updates cost.

Each function takes what does not change and gives a step: (state, data) -> the next state, the bound of the first.
Expected statistics are one product of matrices over all the data; of second moments (`features`) one triangle is kept.
"""

from collections.abc import Callable
from math import log, pi
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, lu_factor, lu_solve
from jax.scipy.special import digamma, gammaln, multigammaln
from jaxtyping import Array

Step = Callable[[Any, Any], tuple[Any, Array]]


def features(centred: Array) -> Array:
    """(N, D) to (N, D (D + 1) / 2 + D + 1): the products of two entries, the entries, and one."""
    rows, columns = np.triu_indices(centred.shape[1])
    ones = jnp.ones((len(centred), 1), centred.dtype)
    return jnp.concatenate([centred[:, rows] * centred[:, columns], centred, ones], -1)


def _coefficients(precision: Array, loc: Array, constant: Array) -> Array:
    """Of the features in constant_k - (y - loc_k)' precision_k (y - loc_k) / 2."""
    rows, columns = np.triu_indices(loc.shape[1])
    multiplicity = np.where(rows == columns, 1, 2).astype(np.float32)
    linear = jnp.einsum("kij,kj->ki", precision, loc)
    constant = constant - 0.5 * (linear * loc).sum(-1)
    return jnp.concatenate([-0.5 * multiplicity * precision[:, rows, columns], linear, constant[:, None]], -1)


def _moments(probs: Array, features: Array, size: int) -> tuple[Array, Array, Array]:
    """Counts (K,), sums (K, D) and sums of outer products (K, D, D)."""
    rows, columns = np.triu_indices(size)
    sums = probs.T @ features
    second = jnp.zeros((len(sums), size, size)).at[:, rows, columns].set(sums[:, : len(rows)])
    second = second.at[:, columns, rows].set(sums[:, : len(rows)])
    return sums[:, -1], sums[:, -1 - size : -1], second


def _inverse(matrix: Array) -> tuple[Array, Array]:
    """The inverse and the log-determinant."""
    factor = jnp.linalg.cholesky(matrix)
    identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1]), matrix.shape)
    log_determinant = 2 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return cho_solve((factor, True), identity), log_determinant


def gaussian_mixture(num: int, size: int) -> Step:
    def step(state, features):
        log_weights, loc, precision, log_determinant, logits = state
        constant = log_weights + 0.5 * (log_determinant - size * log(2 * pi))
        joint = features @ _coefficients(precision, loc, constant).T
        log_probs = jax.nn.log_softmax(logits, -1)
        bound = (jnp.exp(log_probs) * (joint - log_probs)).sum()
        counts, sums, second = _moments(jax.nn.softmax(joint, -1), features, size)
        loc = sums / counts[:, None]
        precision, log_determinant = _inverse(second / counts[:, None, None] - loc[:, :, None] * loc[:, None, :])
        return (jnp.log(counts / num), loc, precision, -log_determinant, joint), bound

    return step


def bayesian_mixture(concentration: Array, weight: Array, degrees: Array, scatter: Array) -> Step:
    """Bishop (2006), section 10.2, the prior mean at the origin of the data."""
    size = len(scatter)
    prior_log_determinant = jnp.linalg.slogdet(scatter)[1]

    def log_normalizer(degrees, log_determinant):
        return degrees / 2 * (log_determinant - size * log(2)) - multigammaln(degrees / 2, size)

    def step(joint, features):
        counts, sums, second = _moments(jax.nn.softmax(joint, -1), features, size)
        alpha, kappa, nu = concentration + counts, weight + counts, degrees + counts
        loc = sums / kappa[:, None]
        posterior_scatter = scatter + second - kappa[:, None, None] * loc[:, :, None] * loc[:, None, :]
        inverse, log_determinant = _inverse(posterior_scatter)
        precision = nu[:, None, None] * inverse
        log_precision = digamma((nu[:, None] - jnp.arange(size)) / 2).sum(-1) + size * log(2) - log_determinant
        log_weights = digamma(alpha) - digamma(alpha.sum())
        constant = log_weights + 0.5 * (log_precision - size * log(2 * pi) - size / kappa)
        joint = features @ _coefficients(precision, loc, constant).T
        dirichlet = (
            gammaln(alpha.sum()) - gammaln(alpha).sum() - gammaln(len(alpha) * concentration)
            + len(alpha) * gammaln(concentration) + ((alpha - concentration) * log_weights).sum()
        )  # fmt: skip
        wishart = (
            log_normalizer(nu, log_determinant) - log_normalizer(degrees, prior_log_determinant)
            + (nu - degrees) / 2 * log_precision - 0.5 * ((posterior_scatter - scatter) * precision).sum((-2, -1))
        )  # fmt: skip
        spread = jnp.einsum("ki,kij,kj->k", loc, precision, loc)
        normal = 0.5 * (size * (weight / kappa - 1 + jnp.log(kappa / weight)) + weight * spread)
        return joint, jax.nn.logsumexp(joint, -1).sum() - dirichlet - (wishart + normal).sum()

    return step


def hidden_markov(states: int) -> Step:
    """The scaled forward-backward algorithm."""

    def step(state, y):
        log_initial, log_transition, loc, precision = state
        likelihood = 0.5 * (jnp.log(precision) - log(2 * pi) - precision * (y[:, None] - loc) ** 2)
        peak = likelihood.max(-1, keepdims=True)
        scaled, transition = jnp.exp(likelihood - peak), jnp.exp(log_transition)

        def forwards(predicted, weight):
            joint = predicted * weight
            total = joint.sum()
            return (joint / total) @ transition, (joint / total, total)

        def backwards(future, inputs):
            filtered, weight, total = inputs
            message = future * weight / total
            pair = filtered[:, None] * transition * message
            return transition @ message, pair

        _, (filtered, totals) = jax.lax.scan(forwards, jnp.exp(log_initial), scaled)
        inputs = (filtered[:-1], scaled[1:], totals[1:])
        _, pairs = jax.lax.scan(backwards, jnp.ones(states), inputs, reverse=True)
        probs = jnp.concatenate([pairs.sum(-1), filtered[-1:]])
        counts, transitions = probs.sum(0), pairs.sum(0)
        loc = probs.T @ y / counts
        precision = counts / (probs * (y[:, None] - loc) ** 2).sum(0)
        log_transition = jnp.log(transitions / transitions.sum(-1, keepdims=True))
        return (jnp.log(probs[0]), log_transition, loc, precision), (jnp.log(totals) + peak[:, 0]).sum()

    return step


def linear_dynamical(initial_covariance: Array) -> Step:
    """Kalman's filter with all observations of a time at once, and the smoother of Rauch, Tung and Striebel."""
    identity = jnp.eye(len(initial_covariance))

    def step(state, y):
        initial_loc, transition, covariance, loading, offset, precision = state
        weighted = loading * precision[:, None]
        centred = y - offset
        information, evidence = loading.T @ weighted, centred @ weighted

        def forwards(predicted, evidence):
            loc, spread = predicted
            factors = lu_factor(identity + spread @ information)
            gap = evidence - information @ loc
            filtered = lu_solve(factors, spread)
            gain = gap @ filtered
            twice_log_likelihood = (
                loc @ (evidence + gap) + gap @ gain - jnp.log(jnp.abs(jnp.diagonal(factors[0]))).sum()
            )
            following = transition @ (loc + gain), transition @ filtered @ transition.T + covariance
            return following, (loc + gain, filtered, *following, twice_log_likelihood)

        def backwards(future, inputs):
            loc, spread, predicted_loc, predicted = inputs
            future_loc, future_spread = future
            factor = jnp.linalg.cholesky(predicted)
            gain = cho_solve((factor, True), transition @ spread).T
            here = loc + gain @ (future_loc - predicted_loc), spread + gain @ (future_spread - predicted) @ gain.T
            return here, (*here, future_spread @ gain.T)

        _, (locs, spreads, *predicted, log_likelihoods) = jax.lax.scan(
            forwards, (initial_loc, initial_covariance), evidence
        )
        inputs = (locs[:-1], spreads[:-1], *(array[:-1] for array in predicted))
        last = locs[-1], spreads[-1]
        _, (means, covariances, crossed) = jax.lax.scan(backwards, last, inputs, reverse=True)
        means, covariances = jnp.concatenate([means, locs[-1:]]), jnp.concatenate([covariances, spreads[-1:]])
        quadratic = (precision * centred**2).sum() + len(y) * (log(2 * pi) - jnp.log(precision)).sum()
        bound = 0.5 * (log_likelihoods.sum() - quadratic)

        spread = covariances.sum(0)
        every = means.T @ means + spread
        first = every - jnp.outer(means[-1], means[-1]) - covariances[-1]
        rest = every - jnp.outer(means[0], means[0]) - covariances[0]
        both = means[1:].T @ means[:-1] + crossed.sum(0)
        transition = jnp.linalg.solve(first, both.T).T
        covariance = (rest - transition @ both.T) / (len(y) - 1)
        loading = jnp.linalg.solve(every, means.T @ centred).T
        offset = (y - means @ loading.T).mean(0)
        residual = ((y - offset - means @ loading.T) ** 2).sum(0) + jnp.einsum("dl,lm,dm->d", loading, spread, loading)
        return (means[0], transition, (covariance + covariance.T) / 2, loading, offset, len(y) / residual), bound

    return step
