"""The posterior of a recording: named factors and points, built from a trace of the program."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers

from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, Indicator, MarkovChain
from vbss.factors import CovariancePoint, Factor, GivenFactor, StatisticsFactor, ValueFactor, started
from vbss.families import statistics_family, value_family
from vbss.hermitian import pack
from vbss.kinds import Kind
from vbss.program import Given, Model, unexpanded, unmasked


class Posterior(eqx.Module):
    """q: independent factors over the latent sites, and point estimates of a recording's own unknowns.

    `posterior["site"]` is a NumPyro distribution for a latent site and an array for a point.
    """

    factors: dict[str, Factor]
    points: dict[str, Array]
    kinds: tuple[tuple[str, Kind, str | None], ...] = eqx.field(static=True)
    order: tuple[str, ...] = eqx.field(static=True)

    def __getitem__(self, name: str) -> dist.Distribution | Array:
        if name in self.points:
            return self.points[name]
        for factor in self.factors.values():
            if name in factor.sites:
                with relaxed_promotion():
                    return factor.distributions()[name]
        raise KeyError(f"{name!r} is not a site of this posterior; it has {sorted(self.names())}")

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def names(self) -> set[str]:
        """The names of all latent sites and points."""
        return {site for factor in self.factors.values() for site in factor.sites} | set(self.points)

    def kind_of(self, point: str) -> tuple[Kind, str | None]:
        """A point's kind, and the indicator that it is given."""
        return next((kind, given) for name, kind, given in self.kinds if name == point)

    def block_of(self, name: str) -> str:
        """The key of the factor or point that covers a site."""
        for key, factor in self.factors.items():
            if name in factor.sites:
                return key
        return name

    def with_factor(self, key: str, factor: Factor) -> "Posterior":
        return Posterior({**self.factors, key: factor}, self.points, self.kinds, self.order)

    def with_point(self, name: str, value: Array) -> "Posterior":
        return Posterior(self.factors, {**self.points, name: value}, self.kinds, self.order)


def initial_posterior(model: Model, data: tuple, key: Array, start: Mapping[str, Array] | None = None) -> Posterior:
    """The default posterior of a program: one factor for each latent, an indicator joined with what is given it.

    Args:
        start: {site: probabilities or value}; indicators left out start at random responsibilities.

    Raises:
        ValueError: for a latent whose distribution has no factor here, or a start that names no site or has another
            shape.
    """
    posterior = default_posterior(model, data, key)
    for name, value in (start or {}).items():
        posterior = _start(posterior, name, value)
    return posterior


# Compiled, so that what the trace draws only to show its shape is never drawn.
@eqx.filter_jit
def default_posterior(model: Model, data: tuple, key: Array) -> Posterior:
    """The posterior of `initial_posterior` without a start."""
    key_trace, key_start = jax.random.split(key)
    with relaxed_promotion():
        trace = handlers.trace(handlers.seed(model, key_trace)).get_trace(*data)
    latents = {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"] and site["value"] is not None
    }
    gates = {
        name: _gate_of(site["fn"], trace)
        for name, site in latents.items()
        if isinstance(unmasked(site["fn"])[0], Given)
    }
    for name, site in latents.items():
        if site["scale"] is not None:
            raise ValueError(
                f"latent site {name!r} is scaled, by handlers.scale or a subsampled plate: only observed sites may be"
            )
    for name, gate in gates.items():
        base = unexpanded(unmasked(trace[gate]["fn"])[0])
        if not isinstance(base, Indicator) or base.axis != -1:
            raise ValueError(f"site {name!r} is given {gate!r}, which must be a vbss.indicator with its states last")
        first = next(other for other in gates if gates[other] == gate)
        if first != name:
            raise ValueError(
                f"latent sites {first!r} and {name!r} are both given {gate!r}, which has no factor of the posterior: "
                "join them in one site"
            )
    factors: dict[str, Factor] = {}
    for name, site in latents.items():
        if name in gates.values():
            continue
        key_start, key_site = jax.random.split(key_start)
        factors[name] = _factor(name, site, gates.get(name), trace, key_site)
    params = {name: site for name, site in trace.items() if site["type"] == "param"}
    undeclared = [name for name, site in params.items() if "kind" not in site["kwargs"]]
    if undeclared:
        raise ValueError(f"param site {undeclared[0]!r} has no kind: declare it with vbss.point(name, initial, kind)")
    points = {name: site["value"] for name, site in params.items()}
    kinds = tuple((name, site["kwargs"]["kind"], site["kwargs"].get("given")) for name, site in params.items())
    for name, _, given in kinds:
        if given is not None and f"{given}/onehot" not in trace:
            raise ValueError(f"point {name!r} is given {given!r}, which is no indicator of the program")
    posterior = Posterior(factors, points, kinds, (*factors, *points))
    clash = posterior.names() & set(model.parameter_kinds())
    if clash:
        raise ValueError(f"{sorted(clash)[0]!r} names both a site of the program and a parameter of the model")
    return posterior


def _gate_of(fn: dist.Distribution, trace: dict) -> str:
    given: Any = unmasked(fn)[0]
    for name, site in trace.items():
        if site["type"] == "deterministic" and site["value"] is given.gate:
            return name.removesuffix("/onehot")
    raise ValueError("Given: the gate must be what vbss.indicator returned, unchanged")


def _factor(name: str, site: dict, gate: str | None, trace: dict, key: Array) -> Factor:
    fn: Any = unmasked(site["fn"])[0]
    if gate is not None:
        family = value_family(unexpanded(fn.base))
        if family is not None:
            onehot = trace[f"{gate}/onehot"]["value"]
            axis = onehot.ndim - 1
            states = jnp.repeat(site["value"], onehot.shape[-1], axis)
            logits = _random_logits(onehot, key)
            return GivenFactor(logits, family.initial(states), family, gate, name)
    base = unexpanded(fn)
    if hasattr(base, "sufficient_statistics") and not any(key.startswith(f"{name}/") for key in trace):
        raise ValueError(f"latent site {name!r} is {type(base).__name__}: draw it with vbss.statistics(name, ...)")
    if isinstance(base, ComplexInverseWishart):
        return CovariancePoint.at(jnp.broadcast_to(base.packed_mode, pack(site["value"]).shape), name)
    statistics = statistics_family(base)
    if statistics is not None:
        onehot = trace[f"{name}/onehot"]["value"]
        natural = {"onehot": _random_logits(onehot, key)}
        if isinstance(base, MarkovChain):
            pair = trace[f"{name}/pair"]["value"]
            natural["pair"] = jnp.zeros_like(pair)
        return StatisticsFactor(natural, statistics, name)
    family = value_family(base)
    if family is None:
        raise ValueError(
            f"latent site {name!r} is {_described(base)}, which has no factor of the posterior: use vbss.indicator, "
            "vbss.markov_chain, a normal or gamma distribution (plain or in vbss.Given), or a complex inverse Wishart"
        )
    return ValueFactor(family.initial(site["value"]), family, name)


def _described(fn: dist.Distribution) -> str:
    return f"Given of {type(unexpanded(fn.base)).__name__}" if isinstance(fn, Given) else type(fn).__name__


def _random_logits(onehot: Array, key: Array) -> Array:
    return jax.random.normal(key, onehot.shape, onehot.dtype)


def _start(posterior: Posterior, name: str, value: Array) -> Posterior:
    if name in posterior.points:
        expected = posterior.points[name]
        if value.shape != expected.shape:
            raise ValueError(f"start: point {name!r} must have shape {expected.shape}, got {value.shape}")
        return posterior.with_point(name, jnp.asarray(value, expected.dtype))
    key = posterior.block_of(name)
    if key not in posterior.factors:
        raise ValueError(
            f"start: {name!r} is not a latent site or point of the program; it has {sorted(posterior.names())}"
        )
    return posterior.with_factor(key, started(posterior.factors[key], value))
