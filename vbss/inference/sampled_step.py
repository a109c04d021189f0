"""The M-step on draws: parameters and points are raised in E[log p], the mean over draws of the continuous latents."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss import expectation
from vbss.factors import Factor, Values
from vbss.inference.step_size import stepped
from vbss.inference.unconstrained import Unconstrained
from vbss.kinds import Kind, ReadKind
from vbss.program import Model

Draws = tuple[Values, dict[str, Factor]]
"""Values of the continuous latents and the discrete ones' factors given each, with a leading axis of draws."""


def unknowns(model: Model, target: Unconstrained, frozen: Iterable[str]) -> tuple[str, ...]:
    """What is learnt, in the order in which a step visits it."""
    known = [*(name for name, _, _ in target.collapsed.kinds), *model.parameter_kinds()]
    order = [name for name in model.schedule or () if name in known]
    return tuple(name for name in (order or known) if name not in frozen)


def draws_at(target: Unconstrained, positions: Float[Array, "draws size"] | None) -> Draws:
    """What draws say; of a program without continuous latents there is one."""

    def of_values(values: Values) -> Draws:
        return values, target.collapsed.conditional(values, target.observations).factors

    if positions is None:
        return jax.tree.map(lambda leaf: leaf[None], of_values({}))
    return jax.vmap(lambda position: of_values(target.values(position)))(positions)


def coefficients_of(
    model: Model, target: Unconstrained, data: tuple, blocks: tuple[str, ...], draws: Draws
) -> dict[str, dict[str, Array]]:
    """The coefficients of those unknowns that are read."""
    found = {}
    for block in blocks:
        kind, value, objective = _unknown(model, target, data, block, draws)
        if isinstance(kind, ReadKind):
            found[block] = kind.coefficients(objective, value)
    return found


def improved(
    model: Model,
    target: Unconstrained,
    data: tuple,
    blocks: tuple[str, ...],
    draws: Draws,
    coefficients: dict[str, Any],
    rho: Float[Array, ""],
) -> tuple[Model, dict[str, Array], dict[str, Any]]:
    """The model, the points and the running coefficients after each unknown in turn took a step of size rho."""
    coefficients, points = dict(coefficients), dict(target.collapsed.points)
    for block in blocks:
        kind, value, objective = _unknown(model, target.at(model, points), data, block, draws)
        value, average = stepped(kind, objective, value, coefficients.get(block), rho)
        if average is not None:
            coefficients[block] = average
        if block in points:
            points[block] = value
        else:
            model = model.replace(**{block: value})
    return model, points, coefficients


def _unknown(
    model: Model, target: Unconstrained, data: tuple, block: str, draws: Draws
) -> tuple[Kind, Array, Callable[[Array], Float[Array, ""]]]:
    """A point or parameter: its kind, its value, and E[log p] as a function of it, the mean over draws."""
    size = next((leaf.shape[0] for leaf in jax.tree.leaves(draws)), 1)

    def of_draw(draw: Draws) -> tuple[Kind, Array, Callable]:
        posterior = target.collapsed.at(*draw)
        return expectation.unknown_objective(model, posterior, data, block, target.observations)

    kind, value, _ = of_draw(jax.tree.map(lambda leaf: leaf[0], draws))
    # Of as many draws as there are even where no latent is left to draw.
    numbered = jnp.arange(size), draws

    # Draw by draw, derivatives too: what each leaves behind stays in the cache, and memory does not grow with draws. An
    # accelerator, which could take them together, has its parallel work within a draw.
    @jax.custom_jvp
    def objective(value: Array) -> Float[Array, ""]:
        return jax.lax.map(lambda pair: of_draw(pair[1])[2](value), numbered).mean()

    @objective.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (value,), (tangent,) = primals, tangents

        def added(total: Array, pair: tuple[Array, Draws]) -> tuple[Array, None]:
            return total + jax.grad(of_draw(pair[1])[2])(value), None

        gradient = jax.lax.scan(added, jnp.zeros_like(value), numbered)[0] / size
        mean = objective(value)
        return mean, (gradient * tangent).sum().astype(mean.dtype)

    return kind, value, objective
