"""Every block's update: the hand-derived one is the derived one, it is an optimum, and it never lowers the bound."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss import expectation
from vbss.check.report import BlockCheck, Row
from vbss.compilation import compiled
from vbss.expectation import Observations
from vbss.inference.em import EM
from vbss.kinds import Kind, ReadKind
from vbss.posteriors import Posterior
from vbss.program import Model


def check_blocks(
    algorithm: EM, model: Model, posterior: Posterior, data: tuple, num_states: int, tolerance: float
) -> tuple[tuple[BlockCheck, ...], tuple[Row, ...]]:
    """Each block at its worst over consecutive iterations, and the closed-form bound if there is one."""
    observations = algorithm.constants(model, posterior, data)
    before = _bound(model, posterior, data, observations)
    worst: dict[str, BlockCheck] = {}
    differences: list[float] = []
    for _ in range(num_states):
        for block in algorithm.schedule(model, posterior):
            model, posterior, after, difference, gradient = _examine(
                algorithm, model, posterior, data, block, observations
            )
            scale = 1 + abs(float(after))
            found = BlockCheck(
                block,
                None if difference is None else float(difference),
                None if gradient is None else float(gradient) / scale,
                (float(after) - float(before)) / scale,
            )
            worst[block] = _worse(worst.get(block, found), found)
            before = after
        if "elbo" in algorithm.closed_forms(model):
            closed = float(_closed_bound(algorithm, model, posterior, data, observations))
            differences.append(abs(closed - float(before)) / (1 + abs(float(before))))
    rows = (Row("elbo", _largest(differences), tolerance),) if differences else ()
    return tuple(worst.values()), rows


def _largest(values: list[float]) -> float:
    """The largest one, nan being the largest of all."""
    return max(values, key=lambda value: (value != value, value))


def _worse(a: BlockCheck, b: BlockCheck) -> BlockCheck:
    def larger(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else _largest([first, second])

    change = -_largest([-a.change, -b.change])
    return BlockCheck(a.block, larger(a.difference, b.difference), larger(a.gradient, b.gradient), change)


@compiled
def _examine(
    algorithm: EM, model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations
) -> tuple[Model, Posterior, Array, Array | None, Array | None]:
    """The model and posterior after a block's update, the bound there, how far the update is from the derived one, and
    the largest derivative of the bound in the block's coordinates."""
    updated = algorithm.update(model, posterior, data, block, observations)
    difference = None
    if block in algorithm.closed_forms(model):
        derived = expectation.derived_update(model, posterior, data, block, observations)
        difference = _distance(_coordinates(*updated, block), _coordinates(*derived, block))
    model, posterior = updated

    after = expectation.elbo(model, posterior, data, observations)
    if block not in posterior.factors and not _is_exact(_kind(model, posterior, block)):
        return model, posterior, after, difference, None

    def bound(coordinates: Any) -> Array:
        return expectation.elbo(*_placed(model, posterior, block, coordinates), data, observations)

    gradient = jax.grad(bound)(_coordinates(model, posterior, block))
    return model, posterior, after, difference, _largest_entry(gradient)


def _kind(model: Model, posterior: Posterior, block: str) -> Kind:
    return posterior.kind_of(block)[0] if block in posterior.points else model.parameter_kinds()[block]


def _is_exact(kind: Kind) -> bool:
    return isinstance(kind, ReadKind) and kind.is_exact


def _coordinates(model: Model, posterior: Posterior, block: str) -> Any:
    """A block's free coordinates, equal for equal distributions."""
    if block in posterior.factors:
        return posterior.factors[block].canonical()
    value = posterior.points[block] if block in posterior.points else getattr(model, block)
    return _kind(model, posterior, block).unconstrain(value)


def _placed(model: Model, posterior: Posterior, block: str, coordinates: Any) -> tuple[Model, Posterior]:
    if block in posterior.factors:
        return model, posterior.with_factor(block, posterior.factors[block].with_natural(coordinates))
    value = _kind(model, posterior, block).constrain(coordinates)
    return expectation.with_unknown(model, posterior, block, value)


def _distance(a: Any, b: Any) -> Array:
    """Largest entrywise difference, relative to 1 + the size of the entry."""
    return _largest_entry(jax.tree.map(lambda x, y: (x - y) / (1 + jnp.abs(y)), a, b))


def _largest_entry(tree: Any) -> Array:
    return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)]).max()


@compiled
def _bound(model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    return expectation.elbo(model, posterior, data, observations)


@compiled
def _closed_bound(algorithm: EM, model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    return algorithm.elbo(model, posterior, data, observations)
