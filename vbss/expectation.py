"""E_q[log p] of a program, exactly, and the one derived update of coordinate ascent.

A block is a factor of q, a point of q or a parameter of the model. Its update fixes everything else, forms
f = E_q(rest)[log p] from the program's text, and reads the coefficients of the block's statistics from derivatives of
f: a factor keeps them as natural parameters, a point or parameter takes their mode.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Float
from numpyro import handlers

from vbss.context import relaxed_promotion
from vbss.factors import Factor, ProgramObjective, Values
from vbss.gated import Gated
from vbss.kinds import Kind
from vbss.posteriors import Posterior
from vbss.program import Model, unexpanded, unmasked

Observations = dict[str, dict[str, Array]]


def observe(model: Model, posterior: Posterior, data: tuple) -> Observations:
    """The statistics of every gated observation, {site: statistics}.

    They depend on the data alone, so that the iteration need not compute them again.
    """
    trace = trace_of(model, posterior, data)
    if not any(site["type"] == "sample" and site["is_observed"] for site in trace.values()):
        raise ValueError("the program observes nothing: give obs= to the site of the data")
    return {
        name: fn.statistics(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample" and isinstance(fn := unmasked(site["fn"])[0], Gated)
    }


def trace_of(model: Model, posterior: Posterior, data: tuple) -> dict:
    """NumPyro's trace of the program at some values of the posterior's sites."""
    values = dict(posterior.points)
    for factor in posterior.factors.values():
        values |= factor.representative()
    return _trace(model, data, values)


def log_joint(model: Model, data: tuple, values: Values, observations: Observations) -> Float[Array, ""]:
    """The program's log density at given values of its sites, in the form that is linear in every statistic."""
    total: Any = 0.0
    # Exact rules put values outside a distribution's support: one-hots of no one state, simplices of no norm.
    with numpyro.validation_enabled(False):
        trace = _trace(model, data, values)
        for name, site in trace.items():
            if site["type"] == "sample":
                log_prob = _site_log_prob(name, site, trace, observations)
                with relaxed_promotion():
                    total = total + (log_prob if site["scale"] is None else site["scale"] * log_prob)
    return total


def _trace(model: Model, data: tuple, values: Values) -> dict:
    with relaxed_promotion():
        return handlers.trace(handlers.substitute(model, values)).get_trace(*data)


def _site_log_prob(name: str, site: dict, trace: dict, observations: Observations) -> Array:
    fn, mask = unmasked(site["fn"])
    if isinstance(fn, Gated):
        return fn.total(observations[name], mask)
    base = unexpanded(fn)
    if hasattr(base, "expected_log_prob"):
        # The linear form, for observed sites too: its gradient in log-probabilities is the counts.
        statistics = base.sufficient_statistics(site["value"]) if site["is_observed"] else _statistics(name, trace)
        with relaxed_promotion():
            log_prob = jnp.broadcast_to(base.expected_log_prob(statistics), fn.batch_shape)
    else:
        with relaxed_promotion():
            log_prob = jnp.asarray(fn.log_prob(site["value"]))
    return (log_prob if mask is None else jnp.where(mask, log_prob, 0)).sum()


def _statistics(name: str, trace: dict) -> dict[str, Array]:
    """The statistics that the program handed on for a latent site."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): site["value"] for key, site in trace.items() if key.startswith(prefix)}


def _integrated(model: Model, factors: list[Factor], data: tuple, values: Values, observations: Observations) -> Array:
    """E over the listed factors, nested, of the log joint at the values of all other blocks."""
    if not factors:
        return log_joint(model, data, values, observations)
    first, *rest = factors
    return first.integrate(lambda more: _integrated(model, rest, data, values | more, observations))


def block_objective(
    model: Model, posterior: Posterior, data: tuple, key: str, observations: Observations
) -> ProgramObjective:
    """f(values of the block `key`) = E_q(all other factors)[log p]."""
    rest = [factor for name, factor in posterior.factors.items() if name != key]

    def objective(values: Values) -> Array:
        return _integrated(model, rest, data, {**posterior.points, **values}, observations)

    return objective


def derived_update(
    model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations
) -> tuple[Model, Posterior]:
    """One coordinate-ascent update of a factor, a point or a parameter, derived from the program."""
    if block in posterior.factors:
        objective = block_objective(model, posterior, data, block, observations)
        return model, posterior.with_factor(block, posterior.factors[block].update(objective))
    kind, value, objective = unknown_objective(model, posterior, data, block, observations)
    return with_unknown(model, posterior, block, kind.maximize(objective, value))


def unknown_objective(
    model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations
) -> tuple[Kind, Array, Callable[[Array], Array]]:
    """A point or parameter: its kind, its value, and E_q[log p] as a function of it."""
    if block in posterior.points:
        kind, given = posterior.kind_of(block)
        return kind, posterior.points[block], _point_objective(model, posterior, data, block, given, observations)
    factors = list(posterior.factors.values())

    def objective(value: Array) -> Array:
        return _integrated(model.replace(**{block: value}), factors, data, posterior.points, observations)

    return model.parameter_kinds()[block], getattr(model, block), objective


def with_unknown(model: Model, posterior: Posterior, block: str, value: Array) -> tuple[Model, Posterior]:
    """A point or parameter at another value."""
    if block in posterior.points:
        return model, posterior.with_point(block, value)
    return model.replace(**{block: value}), posterior


def _point_objective(
    model: Model, posterior: Posterior, data: tuple, block: str, given: str | None, observations: Observations
) -> Callable[[Array], Array]:
    gate = None if given is None else posterior.block_of(given)
    rest = [factor for name, factor in posterior.factors.items() if name != gate]

    def objective(value: Array) -> Array:
        points = {**posterior.points, block: value}
        if gate is None:
            return _integrated(model, rest, data, points, observations)
        # Every state of the indicator is held open, so that the value under a state does not depend on its probability.
        return posterior.factors[gate].integrate_every_state(
            lambda values: _integrated(model, rest, data, points | values, observations)
        )

    return objective


def expected_log_joint(model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Float[Array, ""]:
    """E_q[log p(y, z)], exact."""
    return _integrated(model, list(posterior.factors.values()), data, posterior.points, observations)


def elbo(model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Float[Array, ""]:
    """The evidence lower bound E_q[log p - log q] (with points at their values: penalised by their priors)."""
    entropy = sum(factor.entropy() for factor in posterior.factors.values())
    return expected_log_joint(model, posterior, data, observations) + entropy
