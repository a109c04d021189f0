"""The bound of a normal q, estimated at one draw: for latents whose expectations no rule gives exactly."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence

from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.posteriors.guided import GuidePosterior
from vbss.program import Model, unmasked

Normals = Mapping[str, tuple[Array, Array]]
"""q of each latent: its mean and the logarithm of its variance, independent of all others."""


_NUM_DRAWS = 100  # that a posterior keeps


def means_of(normals: Normals) -> dict[str, Array]:
    """Of each latent."""
    return {name: mean for name, (mean, _) in normals.items()}


def drawn(normals: Normals, key: Array) -> dict[str, Array]:
    """A draw of each latent, differentiable in q."""
    keys = jax.random.split(key, len(normals))
    return {
        name: mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        for key, (name, (mean, log_variance)) in zip(keys, normals.items(), strict=True)
    }


def estimated_bound(
    model: Model,
    data: tuple,
    points: Mapping[str, Array],
    normals: Normals,
    key: Array,
    kl_weight: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """E_q[log p(data | latents)] at one draw of q, less the weight times KL(q || prior), which is exact for normals.

    With the weight 1 this is an unbiased estimate of the evidence lower bound.

    Raises:
        InputError: if the program's latents are others than those of q, not real, or discrete.
    """
    values = drawn(normals, key)
    fit, divergence = jnp.zeros(()), jnp.zeros(())
    with relaxed_promotion(), numpyro.validation_enabled(False), handlers.block():
        sites = _sites(model, data, points)
        _check(normals, {name: site["fn"] for name, site in sites.items() if not site["is_observed"]})
        sites = _sites(model, data, {**points, **values})
        for name, site in sites.items():
            scale = 1.0 if site["scale"] is None else site["scale"]
            if site["is_observed"]:
                fn, mask = unmasked(site["fn"])
                log_prob = jnp.broadcast_to(fn.log_prob(site["value"]), fn.batch_shape)
                fit = fit + scale * (log_prob if mask is None else jnp.where(mask, log_prob, 0)).sum()
            else:
                divergence = divergence + scale * _divergence(site["fn"], *normals[name], values[name])
        return fit - kl_weight * divergence


def _sites(model: Model, data: tuple, values: Mapping[str, Array]) -> dict[str, dict]:
    program = handlers.seed(handlers.substitute(model, dict(values)), jax.random.key(0))
    trace = handlers.trace(program).get_trace(*data)
    return {name: site for name, site in trace.items() if site["type"] == "sample"}


def _check(normals: Normals, priors: Mapping[str, Any]) -> None:
    """Raise InputError where q is not of the program's latents."""
    if set(priors) != set(normals):
        raise InputError(f"network: it must say q of {sorted(priors)}, it says that of {sorted(normals)}")
    for name, prior in priors.items():
        if normals[name][0].shape != prior.shape():
            raise InputError(f"network: q of {name!r} must have shape {prior.shape()}, got {normals[name][0].shape}")
        if not _is_real(prior):
            raise InputError(f"network: latent {name!r} must be real for a normal q, its support is {prior.support}")


def _divergence(prior: dist.Distribution, mean: Array, log_variance: Array, value: Array) -> Array:
    """KL(q || prior), summed; where there is no formula, at the draw."""
    q: Any = dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(prior.event_dim)
    try:
        return kl_divergence(q, prior).sum()
    except NotImplementedError:
        return (q.log_prob(value) - prior.log_prob(value)).sum()


def _is_real(prior: Any) -> bool:
    support = prior.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support in (constraints.real, constraints.real_vector)


def normals_of(network: Callable[..., Any], data: tuple) -> dict[str, tuple[Array, Array]]:
    """What a network says of q.

    Raises:
        InputError: if that is not {site: (mean, log variance)} of real arrays of the same shape.
    """
    with relaxed_promotion():
        said = network(*data)
    if not isinstance(said, Mapping) or not said:
        raise InputError(f"network must return a dict of latents and (mean, log variance), got {said!r}")
    for name, pair in said.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0].shape != pair[1].shape:
            raise InputError(f"network: q of {name!r} must be a pair (mean, log variance) of one shape")
    return dict(said)


def normal_posterior(
    normals: Normals, points: Mapping[str, Array], event_ranks: Mapping[str, int], key: Array
) -> GuidePosterior:
    """q with some draws of it."""
    draws = jax.vmap(lambda key: drawn(normals, key))(jax.random.split(key, _NUM_DRAWS))
    moments = {name: (mean, jnp.exp(log_variance / 2)) for name, (mean, log_variance) in normals.items()}
    return GuidePosterior(draws, {}, moments, tuple(event_ranks.items()), dict(points))
