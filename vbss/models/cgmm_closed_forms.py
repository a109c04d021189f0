"""Hand-derived updates of the LDA-style complex Gaussian mixture, in packed form.

Every update is linear in the quadratic forms x^H H^-1 x, so the sum over directions is taken before the sum over time
and no array carries both: Pbar_fk = sum_d w_kd H_fd^-1 meets the data in Q_fkt = x^H Pbar_fk x, and the data meet the
directions through the scatters R_fk = sum_t (z / lambda)_fkt x x^H. Equation numbers are the paper's; (9) is corrected.
Bins that were not observed are left out of both.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss.distributions import ComplexInverseWishart
from vbss.expectation import Observations
from vbss.models.bins import bin_scatters, einsum, num_microphones
from vbss.models.noise_class import gates, of_classes
from vbss.posteriors import Posterior


def _source_probs(posterior: Posterior) -> Array:
    return jax.nn.softmax(posterior.factors["source"].natural["onehot"], -2)  # type: ignore[attr-defined]


def _direction_probs(posterior: Posterior) -> Array:
    return jax.nn.softmax(posterior.factors["direction"].natural["onehot"], -1)  # type: ignore[attr-defined]


def _gates(model: Any, posterior: Posterior) -> Array:
    """The directions' probabilities (k, d), with the noise's covariance as one more, if there is any."""
    return gates(model, _direction_probs(posterior))


def _precisions(model: Any, posterior: Posterior) -> tuple[Array, Array]:
    """H^-1 (f, d, p) and log|H| (f, d), in the same order."""
    held = of_classes(model, _held(posterior))
    return held["precision"], held["log_determinant"]


def _held(posterior: Posterior) -> dict[str, Array]:
    """Those that are inferred."""
    return posterior.factors["spatial_covariance"].held  # type: ignore[attr-defined]


def _observed(data: tuple, values: Array) -> Array:
    """Values per bin (f, k, t), zero in the bins that were not observed."""
    return values if len(data) == 1 or data[1] is None else jnp.where(data[1][:, None], values, 0)


def _counts(posterior: Posterior, data: tuple) -> Array:
    return _observed(data, _source_probs(posterior)).sum(-1)


def _class_scatters(posterior: Posterior, data: tuple, observations: Observations) -> Array:
    weights = _observed(data, _source_probs(posterior) / posterior.points["power"])
    return einsum("fpt,fkt->fpk", bin_scatters(observations), weights)


def _quadratic_forms(model: Any, posterior: Posterior, observations: Observations) -> Array:
    precision, _ = _precisions(model, posterior)
    class_precision = einsum("fkd,fdp->fkp", _everywhere(_gates(model, posterior), precision), precision)
    return einsum("fpt,fkp->fkt", bin_scatters(observations), class_precision)


def _everywhere(direction_probs: Array, like: Array) -> Array:
    """The probabilities (k, d) at every frequency: products one frequency at a time need no transposed copy."""
    return jnp.broadcast_to(direction_probs[None], (like.shape[0], *direction_probs.shape))


def _class_log_determinants(model: Any, posterior: Posterior) -> Array:
    return einsum("kd,fd->fk", _gates(model, posterior), _precisions(model, posterior)[1])


def _misfit(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """sum_f [n_fk log|H_fd| + tr(H_fd^-1 R_fk)], for every class and covariance (k, d)."""
    precision, log_determinant = _precisions(model, posterior)
    counts, scatters = _counts(posterior, data), _class_scatters(posterior, data, observations)
    return einsum("fk,fd->kd", counts, log_determinant) + einsum("fdp,fpk->fdk", precision, scatters).sum(0).T


def direction(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """(E2), equation (17): log w_kd = log phi_d - sum_f [n_fk log|H_fd| + tr(H_fd^-1 R_fk)]."""
    prior = posterior.points["log_direction_weights"]
    misfit = _misfit(model, posterior, data, observations)[: model.num_sources, : len(prior)]
    return {"onehot": prior[None] - misfit}


def log_direction_weights(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """(M3), equation (11)."""
    return _log_mean(_direction_probs(posterior), 0)


def log_mixing_weights(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """(M3), equation (11)."""
    return _log_mean(_source_probs(posterior), 0).T


def _log_mean(probs: Array, axis: int) -> Array:
    return jnp.log(jnp.maximum(probs.mean(axis), jnp.finfo(probs.dtype).tiny))


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """(M1), equation (9) with the prior's (nu - M) G: coefficients of H^-1 and of log|H|."""
    size = num_microphones(observations)
    probs = _direction_probs(posterior)
    scatters = _class_scatters(posterior, data, observations)[..., : model.num_sources]
    scatter = einsum("fkd,fpk->fdp", _everywhere(probs, scatters), scatters)
    counts = einsum("kd,fk->fd", probs, _counts(posterior, data)[:, : model.num_sources])
    nu = model.degrees_of_freedom
    return {"precision": -((nu - size) * model.templates + scatter), "log_determinant": -(nu + size + counts)}


def power(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """(M2), equation (10): lambda = x^H Pbar x / M; what no bin was observed for stays."""
    optimum = _quadratic_forms(model, posterior, observations) / num_microphones(observations)
    if len(data) == 1 or data[1] is None:
        return optimum
    return jnp.where(data[1][:, None], optimum, posterior.points["power"])


def source(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """(E1), equation (16): log z = log pi - M log lambda - sum_d w log|H| - Q / lambda, up to a constant."""
    lam = posterior.points["power"]
    fit = _quadratic_forms(model, posterior, observations) / lam + num_microphones(observations) * jnp.log(lam)
    prior = posterior.points["log_mixing_weights"].T[None]
    return {"onehot": prior - _observed(data, fit + _class_log_determinants(model, posterior)[..., None])}


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """The MAP-penalised bound from the statistics, no constant dropped."""
    size = num_microphones(observations)
    lam = posterior.points["power"]
    source_logits = posterior.factors["source"].natural["onehot"]  # type: ignore[attr-defined]
    direction_logits = posterior.factors["direction"].natural["onehot"]  # type: ignore[attr-defined]
    log_z, log_w = jax.nn.log_softmax(source_logits, -2), jax.nn.log_softmax(direction_logits, -1)
    z, w = _source_probs(posterior), _direction_probs(posterior)
    log_pi = posterior.points["log_mixing_weights"].T[None]
    per_bin = z * (log_pi - log_z - _observed(data, size * (jnp.log(lam) + log(pi))))
    misfit = _gates(model, posterior) * _misfit(model, posterior, data, observations)
    directions = w * (posterior.points["log_direction_weights"][None] - log_w)
    prior = ComplexInverseWishart(model.degrees_of_freedom, (model.degrees_of_freedom - size) * model.templates)
    log_prior = prior.expected_log_prob(_held(posterior)).sum()
    return per_bin.sum() + directions.sum() - misfit.sum() + log_prior


CLOSED_FORMS: Mapping[str, Callable] = {
    "direction": direction,
    "log_direction_weights": log_direction_weights,
    "log_mixing_weights": log_mixing_weights,
    "spatial_covariance": spatial_covariance,
    "power": power,
    "source": source,
    "elbo": elbo,
}
