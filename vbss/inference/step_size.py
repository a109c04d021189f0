"""Steps of decreasing size towards estimates that are noisy: weights, and how an unknown takes such a step."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vbss.errors import InputError
from vbss.kinds import Coefficients, Kind, ReadKind


class StepSize(eqx.Module):
    """rho_n = initial (1 + n / delay)^-forgetting, the weight of step n against all before it.

    Args:
        name: of the algorithm, for messages.
        initial: in (0, 1]. delay: steps, > 0. forgetting: 0 or in (0.5, 1].
    """

    name: str = eqx.field(static=True)
    initial: float = eqx.field(static=True)
    delay: float = eqx.field(static=True)
    forgetting: float = eqx.field(static=True)

    def __check_init__(self):
        if not 0 < self.initial <= 1:
            raise InputError(f"{self.name}: step_size must be in (0, 1], got {self.initial}")
        if not self.delay > 0:
            raise InputError(f"{self.name}: delay must be positive, got {self.delay}")
        if not (self.forgetting == 0 or 0.5 < self.forgetting <= 1):
            raise InputError(f"{self.name}: forgetting must be 0 or in (0.5, 1], got {self.forgetting}")

    def at(self, num_steps: Int[Array, ""], dtype: jnp.dtype) -> Float[Array, ""]:
        """rho after so many steps."""
        return self.initial * (1 + num_steps.astype(dtype) / self.delay) ** -self.forgetting


def towards(here: Any, there: Any, rho: Float[Array, ""]) -> Any:
    """(1 - rho) here + rho there, leaf by leaf."""

    def step(a: Array, b: Array) -> Array:
        weight = rho.astype(a.dtype)
        return (1 - weight) * a + weight * b

    return jax.tree.map(step, here, there)


def stepped(
    kind: Kind, objective: Callable[[Array], Array], value: Array, average: Coefficients | None, rho: Float[Array, ""]
) -> tuple[Array, Coefficients | None]:
    """An unknown's value after a step, and the running average of its coefficients.

    The average holds coefficients as they were read at earlier values of the other unknowns, which it forgets at the
    same rate as the noise; where nothing moves any more, the value is the maximiser. A kind without coefficients moves
    in its unconstrained coordinates.
    """
    if not isinstance(kind, ReadKind):
        ends = kind.unconstrain(value), kind.unconstrain(kind.maximize(objective, value))
        return kind.constrain(towards(*ends, rho)), average
    moved: Coefficients = towards(average, kind.coefficients(objective, value), rho)
    return kind.mode(moved, value), moved
