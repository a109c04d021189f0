"""Whether a program is what derived updates take for granted, tested at random points before the first step.

An update reads coefficients from derivatives of f = E_q(rest)[log p] at one state of its block. If the block enters f
as its factor or kind claims, they predict f's gradient at every other state. Gradients are compared entry by entry:
sums would hide a wrong program in their rounding. Changes of f itself are compared, too: steps have no gradient.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.additive import Additive
from vbss.compilation import compiled
from vbss.errors import InputError
from vbss.expectation import Observations, block_objective, observe, unknown_objective, with_unknown
from vbss.factors import Reading
from vbss.kinds import ReadKind
from vbss.posteriors import Posterior
from vbss.program import Model

_NUM_PAIRS = 4  # of random states: one pair may happen to lie where a wrong program looks right


class ProgramError(InputError):
    """The program is outside the rules of derived inference."""


def is_proven(model: Model) -> bool:
    """Whether this is a model of the package, of whose program the package's tests have proved what probes test."""
    return type(model).__module__.startswith("vbss.models.")


def probe(model: Model, posterior: Posterior, data: tuple, key: Array, blocks: tuple[str, ...]) -> None:
    """Test the readings of these blocks, each with all other blocks at random states.

    Raises:
        ProgramError: naming the site, what was taken for granted of it, and what to do.
    """
    if not blocks:
        return
    for key_pair in jax.random.split(key, _NUM_PAIRS):
        for block, readings in _disagreements(model, posterior, data, key_pair, blocks).items():
            for claim, disagreement in readings.items():
                tolerance = float(jnp.finfo(disagreement.dtype).eps) ** (1 / 3)
                if float(disagreement) > tolerance:
                    coupled = _couplings(model, posterior, data, key_pair, block)[claim]
                    raise ProgramError(_message(model, block, claim, float(disagreement), float(coupled) > tolerance))


def _message(model: Model, block: str, claim: str, disagreement: float, is_coupled: bool) -> str:
    if is_coupled:
        why = f"elements of {block!r} depend on each other, which one update of all of them does not see"
        remedy = "join them in one site with a joint distribution (a Markov chain, a multivariate normal)"
    else:
        why = f"two random states disagree by {disagreement:.0e}"
        remedy = "name another factorisation (blocks=, at_mode=), another kind, or vbss.Numerical for a parameter"
    return (
        f"{type(model).__name__}: E_q[log p] is not {claim}: {why}. Exact updates cannot be derived: {remedy}, or use "
        "an algorithm that needs no derivation (vbss.SVI, vbss.MCMC)"
    )


def _readings(model: Model, posterior: Posterior, data: tuple, observations: Observations, block: str) -> list[Reading]:
    if block in posterior.factors:
        return posterior.factors[block].readings(block_objective(model, posterior, data, block, observations))
    kind, value, objective = unknown_objective(model, posterior, data, block, observations)
    if isinstance(kind, Additive):
        return [_of_multiples(block, kind, value, objective)]
    if not isinstance(kind, ReadKind):
        return []
    return [
        Reading(
            f"{kind.claim} {block!r}, each element on its own",
            objective,
            lambda v: kind.coefficients(objective, v),
            kind.form,
            lambda key: kind.perturbed(value, key),
            value.ndim - kind.rank,
        )
    ]


def _of_multiples(block: str, kind: Additive, value: Array, objective: Callable[[Array], Array]) -> Reading:
    """What f is at the multiples of a value whose covariance is proportional to it: -fit / c - cost log c."""

    def of_scale(scale: Array) -> Array:
        return objective(scale * value)

    def coefficients(scale: Array) -> dict[str, Array]:
        slope, curvature = jax.jvp(jax.grad(of_scale), (scale,), (scale,))
        return {"fit": -(slope + curvature) * scale**2, "cost": -(2 * slope + curvature) * scale}

    return Reading(
        f"{kind.claim} {block!r}",
        of_scale,
        coefficients,
        lambda read, scale: -read["fit"] / scale - read["cost"] * jnp.log(scale),
        lambda key: jnp.exp(jax.random.normal(key, (), value.dtype)),
        0,
    )


def elsewhere(model: Model, posterior: Posterior, key: Array) -> tuple[Model, Posterior]:
    """All blocks at random states, so that no special one hides a product."""
    kinds = model.parameter_kinds()
    for name in (*posterior.order, *kinds):
        key, key_block = jax.random.split(key)
        if name in posterior.factors:
            posterior = posterior.with_factor(name, posterior.factors[name].perturbed(key_block))
        else:
            kind = posterior.kind_of(name)[0] if name in posterior.points else kinds[name]
            value = posterior.points[name] if name in posterior.points else getattr(model, name)
            model, posterior = with_unknown(model, posterior, name, kind.perturbed(value, key_block))
    return model, posterior


@compiled
def _disagreements(
    model: Model, posterior: Posterior, data: tuple, key: Array, blocks: tuple[str, ...]
) -> dict[str, dict[str, Float[Array, ""]]]:
    """How far predicted gradients are from the program's, for each reading of each block."""
    observations = observe(model, posterior, data)
    model, posterior = elsewhere(model, posterior, key)
    found: dict[str, dict[str, Array]] = {}
    for number, block in enumerate(blocks):
        found[block] = {}
        for reading in _readings(model, posterior, data, observations, block):
            first, second = (reading.draw(jax.random.fold_in(key, 2 * number + i)) for i in range(2))
            predict = jax.value_and_grad(partial(reading.form, reading.coefficients(first)))
            (before, slope_before), (after, slope) = predict(first), predict(second)
            value, actual = jax.value_and_grad(reading.objective)(second)
            # The slope at the first state only sets the scale: at one of two random states it is not near zero.
            by_slope = _disagreement(slope, actual, slope_before, reading.batch_rank)
            by_value = _change_disagreement((before, after), (reading.objective(first), value))
            found[block][reading.claim] = jnp.maximum(by_slope, by_value)
    return found


def _change_disagreement(predicted: tuple[Array, Array], actual: tuple[Array, Array]) -> Array:
    """How far a predicted change is from the program's, relative to the larger: a step, as of argmax, has no slope."""
    dtype = predicted[0].dtype
    (first, second), (begun, ended) = predicted, (value.astype(dtype) for value in actual)
    change, predicted_change = ended - begun, second - first
    values = jnp.abs(first) + jnp.abs(second) + jnp.abs(begun) + jnp.abs(ended)
    difference = jnp.maximum(jnp.abs(change - predicted_change) - jnp.finfo(dtype).eps ** 0.5 * values, 0)
    scale = jnp.maximum(jnp.abs(change), jnp.abs(predicted_change))
    return jnp.where(jnp.isfinite(difference) & (difference > 0), difference / scale, 0)


def _disagreement(predicted: Any, actual: Any, elsewhere: Any, batch_rank: int) -> Array:
    """The largest difference of an entry, relative to the size of its element's entries at either state."""

    def of_leaf(p: Array, a: Array, e: Array) -> Array:
        size = jnp.maximum(jnp.maximum(jnp.abs(p), jnp.abs(a)), jnp.abs(e))
        event = tuple(range(batch_rank, size.ndim))
        size = jnp.where(jnp.isfinite(size), size, 0)
        scale = size.max(event, keepdims=True) + jnp.finfo(p.dtype).eps ** 0.5 * size.max()
        difference = jnp.abs(p - a)
        # What is not finite may be the data's fault, and becomes a status of the run.
        is_equal = (difference == 0) | ~jnp.isfinite(difference)
        return jnp.where(is_equal, 0, difference / jnp.where(scale == 0, 1, scale)).max()

    leaves = jax.tree.leaves(jax.tree.map(of_leaf, predicted, actual, elsewhere))
    return jnp.stack(leaves).max()


@compiled
def _couplings(model: Model, posterior: Posterior, data: tuple, key: Array, block: str) -> dict[str, Float[Array, ""]]:
    """How far an element's gradient moves when only other elements of its block do."""
    observations = observe(model, posterior, data)
    model, posterior = elsewhere(model, posterior, key)
    found = {}
    for reading in _readings(model, posterior, data, observations, block):
        first, second = (reading.draw(k) for k in jax.random.split(key))
        batch = jax.tree.leaves(first)[0].shape[: reading.batch_rank]
        stays = (jnp.arange(prod(batch)) % 2 == 0).reshape(batch)

        def where(a: Array, b: Array, stays: Array = stays) -> Array:
            return jnp.where(stays.reshape(*stays.shape, *(1,) * (a.ndim - stays.ndim)), a, b)

        before = jax.grad(reading.objective)(first)
        after = jax.grad(reading.objective)(jax.tree.map(where, first, second))
        # Where an element itself moved, its gradient may change.
        after = jax.tree.map(where, after, before)
        found[reading.claim] = _disagreement(after, before, before, reading.batch_rank)
    return found
