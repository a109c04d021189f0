"""Hand-derived updates of the mixture of complex angular central Gaussians, in packed form.

The data meet the classes in the quadratic forms Q_fkt = x^H B_fk^-1 x and in the scatters
R_fk = sum_t (z / lambda)_fkt x x^H. Bins that do not count are left out of both.
"""

from collections.abc import Callable, Mapping
from math import log, pi
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from vbss.distributions import ComplexInverseWishart
from vbss.expectation import Observations
from vbss.models.bins import bin_scatters, einsum, heard, num_microphones
from vbss.models.cgmm_closed_forms import log_mixing_weights
from vbss.models.noise_class import of_classes
from vbss.posteriors import Posterior


def _log_probs(posterior: Posterior) -> Array:
    return jax.nn.log_softmax(posterior.factors["source"].natural["onehot"], -2)  # type: ignore[attr-defined]


def _held(posterior: Posterior) -> dict[str, Array]:
    """B^-1 (f, k, p) and log|B| (f, k)."""
    return posterior.factors["spatial_covariance"].held  # type: ignore[attr-defined]


def _of_classes(model: Any, posterior: Posterior) -> dict[str, Array]:
    """The same with the noise's, if there is any."""
    return of_classes(model, _held(posterior))


def _counts(data: tuple) -> Bool[Array, "f 1 t"]:
    return heard(*data)[:, None]


def _quadratic_forms(model: Any, posterior: Posterior, observations: Observations) -> Array:
    return einsum("fpt,fkp->fkt", bin_scatters(observations), _of_classes(model, posterior)["precision"])


def spatial_covariance(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """B = (w I + R) / (2 M + w + n), with w the prior's weight and n_fk the number of a class's bins."""
    scatter, size = bin_scatters(observations), num_microphones(observations)
    prior = model.prior(size, scatter.dtype)
    probs = jnp.where(_counts(data), jnp.exp(_log_probs(posterior)), 0)[:, : model.num_sources]
    scatters = einsum("fpt,fkt->fkp", scatter, probs / posterior.points["power"][:, : model.num_sources])
    count = prior.degrees_of_freedom + size + probs.sum(-1)
    return {"precision": -(prior.packed_scale + scatters), "log_determinant": -count}


def power(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """lambda = Q / M; where no bin counts, it stays."""
    optimum = _quadratic_forms(model, posterior, observations) / num_microphones(observations)
    return jnp.where(_counts(data), optimum, posterior.points["power"])


def source(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> dict[str, Array]:
    """log z = log pi - M log lambda - log|B| - Q / lambda, up to a constant."""
    lam = posterior.points["power"]
    fit = _quadratic_forms(model, posterior, observations) / lam + num_microphones(observations) * jnp.log(lam)
    fit = fit + _of_classes(model, posterior)["log_determinant"][..., None]
    return {"onehot": posterior.points["log_mixing_weights"].T[None] - jnp.where(_counts(data), fit, 0)}


def elbo(model: Any, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    """The MAP-penalised bound, no constant dropped."""
    size, log_determinant = num_microphones(observations), _of_classes(model, posterior)["log_determinant"]
    lam = posterior.points["power"]
    log_z = _log_probs(posterior)
    fit = _quadratic_forms(model, posterior, observations) / lam + size * (jnp.log(lam) + log(pi))
    fit = jnp.where(_counts(data), fit + log_determinant[..., None], 0)
    per_bin = jnp.exp(log_z) * (posterior.points["log_mixing_weights"].T[None] - log_z - fit)
    prior: ComplexInverseWishart = model.prior(size, lam.dtype)
    return per_bin.sum() + prior.expected_log_prob(_held(posterior)).sum()


CLOSED_FORMS: Mapping[str, Callable] = {
    "log_mixing_weights": log_mixing_weights,
    "spatial_covariance": spatial_covariance,
    "power": power,
    "source": source,
    "elbo": elbo,
}
