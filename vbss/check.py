"""`check_derivation`: proof that a model's updates, hand-derived or derived, belong to its program."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vbss import expectation
from vbss.expectation import Observations
from vbss.inference.em import EM
from vbss.inference.fit import prepare
from vbss.posterior import Posterior, initial_posterior
from vbss.program import Model


@dataclass(frozen=True)
class BlockCheck:
    """One block at its worst over the states tried.

    Attributes:
        block: a site, point or parameter.
        difference: of the hand-derived update from the derived one, relative; None without a hand-derived update.
        gradient: of the bound in the block's coordinates after the update, relative to 1 + |bound|.
        change: of the bound by the update, relative to 1 + |bound|; a correct update never lowers it.
    """

    block: str
    difference: float | None
    gradient: float
    change: float

    def passed(self, tolerance: float) -> bool:
        small = self.gradient <= tolerance and (self.difference is None or self.difference <= tolerance)
        return bool(small and self.change >= -tolerance)


@dataclass(frozen=True)
class Derivation:
    """What `check_derivation` found. Prints as a table; `passed` says whether every line holds."""

    blocks: tuple[BlockCheck, ...]
    elbo_difference: float | None
    tolerance: float

    @property
    def passed(self) -> bool:
        bound = self.elbo_difference is None or self.elbo_difference <= self.tolerance
        return bound and all(check.passed(self.tolerance) for check in self.blocks)

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the blocks that fail, with "elbo" for the closed-form bound."""
        names = tuple(check.block for check in self.blocks if not check.passed(self.tolerance))
        elbo_failed = self.elbo_difference is not None and not self.elbo_difference <= self.tolerance
        return names + (("elbo",) if elbo_failed else ())

    def __str__(self) -> str:
        rows = [f"{'block':<24}{'closed - derived':>18}{'|gradient|':>14}{'bound change':>14}"]
        for check in self.blocks:
            difference = "-" if check.difference is None else f"{check.difference:.1e}"
            verdict = "" if check.passed(self.tolerance) else "  FAILED"
            rows.append(f"{check.block:<24}{difference:>18}{check.gradient:>14.1e}{check.change:>14.1e}{verdict}")
        if self.elbo_difference is not None:
            verdict = "" if self.elbo_difference <= self.tolerance else "  FAILED"
            rows.append(f"{'closed bound - E_q[log p - log q]':<42}{self.elbo_difference:>14.1e}{verdict}")
        return "\n".join(rows)


def check_derivation(
    model: Model, data: Any, *, key: Array | None = None, start: Mapping[str, Any] | None = None, num_states: int = 4
) -> Derivation:
    """Compare a model's updates with its program at several states of the inference.

    For every block: the hand-derived update, if there is one, equals the derived one; after it the bound has zero
    gradient in the block's coordinates; it never lowers the bound. A closed-form bound equals E_q[log p - log q] of
    the program.
    Use a small problem: each block is compiled on its own.

    Args:
        data: as for `vbss.fit`.
        key: JAX random key of the random start; by default `jax.random.key(0)`.
        start: as for `vbss.fit`; by default all indicators start at random.
        num_states: consecutive iterations at which every block is checked.
    """
    key = jax.random.key(0) if key is None else key
    arguments = prepare(model, data)
    posterior = initial_posterior(model, arguments, key, {k: jnp.asarray(v) for k, v in (start or {}).items()})
    observations = expectation.observe(model, posterior, arguments)
    worst: dict[str, BlockCheck] = {}
    elbo_difference = None
    dtype = expectation.elbo(model, posterior, arguments, observations).dtype
    for _ in range(num_states):
        for block in EM().blocks(model, posterior):
            model, posterior, difference, gradient, change = _examine(model, posterior, arguments, block, observations)
            found = BlockCheck(block, None if difference is None else float(difference), float(gradient), float(change))
            worst[block] = _worse(worst.get(block, found), found)
        if "elbo" in model.closed_forms():
            here = float(_elbo_difference(model, posterior, arguments, observations))
            elbo_difference = here if elbo_difference is None else _larger(elbo_difference, here)
    return Derivation(tuple(worst.values()), elbo_difference, float(jnp.finfo(dtype).eps) ** 0.5)


def _larger(a: float, b: float) -> float:
    """The larger one, nan being the largest."""
    return a if a != a or a >= b else b


def _worse(a: BlockCheck, b: BlockCheck) -> BlockCheck:
    difference = None if a.difference is None or b.difference is None else _larger(a.difference, b.difference)
    return BlockCheck(a.block, difference, _larger(a.gradient, b.gradient), -_larger(-a.change, -b.change))


@eqx.filter_jit
def _examine(model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations):
    closed = EM(updates="auto").update(model, posterior, data, block, observations)
    difference = None
    if block in model.closed_forms():
        derived = expectation.derived_update(model, posterior, data, block, observations)
        difference = _distance(_coordinates(*closed, block), _coordinates(*derived, block))
    before = expectation.elbo(model, posterior, data, observations)
    model, posterior = closed
    after = expectation.elbo(model, posterior, data, observations)

    def bound(coordinates):
        return expectation.elbo(*_placed(model, posterior, block, coordinates), data, observations)

    gradient = jax.grad(bound)(_coordinates(model, posterior, block))
    scale = 1 + jnp.abs(after)
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]).max()
    return model, posterior, difference, largest / scale, (after - before) / scale


def _coordinates(model: Model, posterior: Posterior, block: str) -> Any:
    """A block's free coordinates, equal for equal distributions."""
    if block in posterior.factors:
        return posterior.factors[block].canonical()
    if block in posterior.points:
        return posterior.kind_of(block)[0].unconstrain(posterior.points[block])
    return model.parameter_kinds()[block].unconstrain(getattr(model, block))


def _placed(model: Model, posterior: Posterior, block: str, coordinates: Any) -> tuple[Model, Posterior]:
    if block in posterior.factors:
        return model, posterior.with_factor(block, posterior.factors[block].with_natural(coordinates))
    if block in posterior.points:
        return model, posterior.with_point(block, posterior.kind_of(block)[0].constrain(coordinates))
    return model.replace(**{block: model.parameter_kinds()[block].constrain(coordinates)}), posterior


def _distance(a: Any, b: Any) -> Array:
    """Largest entrywise difference, relative to 1 + the size of the entry."""
    relative = jax.tree.map(lambda x, y: (jnp.abs(x - y) / (1 + jnp.abs(y))).max(), a, b)
    return jnp.stack(jax.tree.leaves(relative)).max()


@eqx.filter_jit
def _elbo_difference(model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Array:
    exact = expectation.elbo(model, posterior, data, observations)
    closed = model.closed_forms()["elbo"](model, posterior, data, observations)
    return jnp.abs(closed - exact) / (1 + jnp.abs(exact))
