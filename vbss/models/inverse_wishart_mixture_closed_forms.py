"""Hand-derived updates of the inverse-Wishart mixture, in packed form, with its covariances at their mode.

The data meet the classes in the quadratic forms Q_fkt = x^H H_fk^-1 x and in the scatters
R_fk = sum_t (z / lambda)_fkt x x^H; no array carries candidate directions and frames together. Bins that were not
observed are left out of both.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss.expectation import Observations
from vbss.models.bins import bin_scatters, einsum, num_microphones
from vbss.models.cgmm_closed_forms import log_direction_weights, log_mixing_weights
from vbss.models.noise_class import of_classes
from vbss.posteriors import Posterior


def _log_probs(posterior: Posterior, name: str, axis: int) -> Array:
    return jax.nn.log_softmax(posterior.factors[name].natural["onehot"], axis)  # type: ignore[attr-defined]


def _log_source_probs(posterior: Posterior) -> Array:
    return _log_probs(posterior, "source", -2)  # (f, k, t)


def _log_direction_probs(posterior: Posterior) -> Array:
    return _log_probs(posterior, "direction", -1)  # (k, d)


def _of_sources(posterior: Posterior) -> dict[str, Array]:
    """H^-1 (f, k, p) and log|H| (f, k), of the sources."""
    return posterior.factors["spatial_covariance"].held  # type: ignore[attr-defined]


def _of_classes(model: Any, posterior: Posterior) -> dict[str, Array]:
    """The same of all classes."""
    return of_classes(model, _of_sources(posterior))


def _observed(data: tuple, values: Array) -> Array:
    """Values per bin (f, k, t), zero in the bins that were not observed."""
    return values if len(data) == 1 or data[1] is None else jnp.where(data[1][:, None], values, 0)


def _moments(posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """R (f, k, p) and the number of bins n (f, k) of all classes: what H^-1 and log|H| meet."""
    probs = _observed(data, jnp.exp(_log_source_probs(posterior)))
    weights = probs / posterior.points["power"]
    return {"precision": einsum("fpt,fkt->fkp", bin_scatters(observations), weights), "log_determinant": probs.sum(-1)}


def _quadratic_forms(model: Any, posterior: Posterior, observations: Observations) -> Array:
    return einsum("fpt,fkp->fkt", bin_scatters(observations), _of_classes(model, posterior)["precision"])


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """H_fk = (sum_d w_kd Psi_fd + R_fk) / (nu + M + n_fk): coefficients of H^-1 and of log|H|."""
    prior = model.prior(jnp.exp(_log_direction_probs(posterior)))
    moments = {name: m[:, : model.num_sources] for name, m in _moments(posterior, data, observations).items()}
    order = model.degrees_of_freedom + num_microphones(observations)
    return {
        "precision": -(prior.packed_scale + moments["precision"]),
        "log_determinant": -(order + moments["log_determinant"]),
    }


def direction(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """log w_kd = log phi_d + sum_f [nu log|Psi_fd| - tr(Psi_fd H_fk^-1)], up to a constant."""
    scales, log_determinants = model.candidates()
    trace = einsum("fdp,fkp->fkd", scales, _of_sources(posterior)["precision"]).sum(0)
    prior = posterior.points["log_direction_weights"] + model.degrees_of_freedom * log_determinants.sum(0)
    return {"onehot": prior[None] - trace}


def power(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """lambda = Q / M; what no bin was observed for stays."""
    optimum = _quadratic_forms(model, posterior, observations) / num_microphones(observations)
    if len(data) == 1 or data[1] is None:
        return optimum
    return jnp.where(data[1][:, None], optimum, posterior.points["power"])


def source(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """log z = log pi - M log lambda - log|H| - Q / lambda, up to a constant."""
    lam = posterior.points["power"]
    fit = _quadratic_forms(model, posterior, observations) / lam + num_microphones(observations) * jnp.log(lam)
    prior = posterior.points["log_mixing_weights"].T[None]
    return {"onehot": prior - _observed(data, fit + _of_classes(model, posterior)["log_determinant"][..., None])}


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """The bound penalised by the prior of H, no constant dropped."""
    log_z, log_w = _log_source_probs(posterior), _log_direction_probs(posterior)
    z, w = jnp.exp(log_z), jnp.exp(log_w)
    log_pi = posterior.points["log_mixing_weights"].T[None]
    log_power = num_microphones(observations) * (jnp.log(posterior.points["power"]) + log(pi))
    per_bin = z * (log_pi - log_z - _observed(data, log_power))
    directions = w * (posterior.points["log_direction_weights"][None] - log_w)
    moments, of_classes = _moments(posterior, data, observations), _of_classes(model, posterior)
    misfit = sum((moments[name] * of_classes[name]).sum() for name in moments)
    log_prior = model.prior(w).expected_log_prob(_of_sources(posterior))
    return per_bin.sum() + directions.sum() - misfit + log_prior.sum()


CLOSED_FORMS: Mapping[str, Callable] = {
    "spatial_covariance": spatial_covariance,
    "direction": direction,
    "log_direction_weights": log_direction_weights,
    "log_mixing_weights": log_mixing_weights,
    "power": power,
    "source": source,
    "elbo": elbo,
}
