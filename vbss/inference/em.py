"""Expectation maximisation and variational EM: coordinate ascent on the evidence lower bound.

Exact EM and variational EM are one algorithm with different factorisations of q; a program whose posterior factorises
as q does gets the exact one.
"""

from typing import Any, Literal

import equinox as eqx
from jaxtyping import Array, Float

from vbss import expectation
from vbss.expectation import Observations
from vbss.posterior import Posterior
from vbss.program import Model

Updates = Literal["auto", "derived", "closed"]


class EM(eqx.Module):
    """Coordinate ascent in which every block is set to its exact optimum in turn.

    Args:
        tolerance: stop when the bound changes by less than this fraction of its size, or of the number of data where
            that is larger; 0 never stops.
        updates: "derived" reads every update from the program, "closed" demands the model's hand-derived ones, "auto"
            takes a hand-derived one where the model has it.
    """

    tolerance: float = eqx.field(static=True, default=1e-6)
    updates: Updates = eqx.field(static=True, default="auto")

    def __check_init__(self):
        if self.tolerance < 0:
            raise ValueError(f"EM: tolerance must not be negative, got {self.tolerance}")
        if self.updates not in ("auto", "derived", "closed"):
            raise ValueError(f"EM: updates must be 'auto', 'derived' or 'closed', got {self.updates!r}")

    def blocks(self, model: Model, posterior: Posterior) -> tuple[str, ...]:
        """The blocks in the order in which a step visits them."""
        known = (*posterior.order, *model.parameter_kinds())
        schedule = known if model.schedule is None else tuple(posterior.block_of(name) for name in model.schedule)
        if sorted(schedule) != sorted(known):
            raise ValueError(
                f"{type(model).__name__}.schedule must name each of {sorted(known)} once, got {list(schedule)}"
            )
        unknown = set(model.closed_forms()) - {*known, "elbo"}
        if unknown:
            raise ValueError(
                f"{type(model).__name__}.closed_forms names {sorted(unknown)[0]!r}, but the blocks are {sorted(known)}"
            )
        return schedule

    def step(
        self, model: Model, posterior: Posterior, data: tuple, observations: Observations
    ) -> tuple[Model, Posterior]:
        """One pass over the blocks: a pure function of pytrees."""
        for block in self.blocks(model, posterior):
            model, posterior = self.update(model, posterior, data, block, observations)
        return model, posterior

    def update(
        self, model: Model, posterior: Posterior, data: tuple, block: str, observations: Observations
    ) -> tuple[Model, Posterior]:
        """One block set to its optimum, by hand-derived or derived update as `updates` says."""
        closed = model.closed_forms()
        if self.updates == "closed" and block not in closed:
            raise ValueError(
                f"EM: {type(model).__name__} has no hand-derived update of {block!r}; it has {sorted(closed)}"
            )
        if self.updates == "derived" or block not in closed:
            return expectation.derived_update(model, posterior, data, block, observations)
        return closed_update(model, posterior, block, closed[block](model, posterior, data, observations))

    def elbo(self, model: Model, posterior: Posterior, data: tuple, observations: Observations) -> Float[Array, ""]:
        """The evidence lower bound."""
        closed = model.closed_forms()
        if self.updates != "derived" and "elbo" in closed:
            return closed["elbo"](model, posterior, data, observations)
        return expectation.elbo(model, posterior, data, observations)


def closed_update(model: Model, posterior: Posterior, block: str, value: Any) -> tuple[Model, Posterior]:
    """Put a block's hand-derived value in its place."""
    if block in posterior.factors:
        return model, posterior.with_factor(block, posterior.factors[block].with_natural(value))
    if block in posterior.points:
        return model, posterior.with_point(block, value)
    return model.replace(**{block: value}), posterior
