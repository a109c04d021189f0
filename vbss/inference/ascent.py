"""Climbing to the most probable position, in the stead of drawing."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vbss.context import relaxed_promotion
from vbss.errors import positive
from vbss.inference.kernel import Kernel


class ClimbingChains(NamedTuple):
    """Positions that climb, and the state of the optimiser."""

    z: Float[Array, "chains size"]
    optimizer: Any
    potential_energy: Float[Array, " chains"]
    diverging: Bool[Array, " chains"]


class Ascent(Kernel):
    """A step of Adam up the log density: point estimates of latents, for `MonteCarloEM` with one chain.

    It leaves no distribution invariant; EM with it is maximisation of the joint density, and its posterior has no
    width. Coordinates are unconstrained ones, with the Jacobian.

    Args:
        learning_rate: of Adam, in unconstrained coordinates.
    """

    learning_rate: float = eqx.field(static=True)

    def __init__(self, learning_rate: float = 1e-2):
        self.learning_rate = positive("Ascent: learning_rate", learning_rate)

    @property
    def _optimizer(self) -> Any:
        import optax  # slow to import, and most of inference has no use for it

        return optax.adam(self.learning_rate)

    def owns(self, chains):
        return isinstance(chains, ClimbingChains)

    def begin(self, target, positions, key):
        state = jax.vmap(self._optimizer.init)(positions)
        return self.moved(target, ClimbingChains(positions, state, positions[:, 0], positions[:, 0] > jnp.inf))

    def draw(self, target, chains):
        gradients = jax.vmap(jax.grad(lambda z: -target.log_density(z)))(chains.z)
        with relaxed_promotion():
            change, state = jax.vmap(self._optimizer.update)(gradients, chains.optimizer)
        is_astray = ~jnp.isfinite(gradients).all(1)
        return chains._replace(z=chains.z + change, optimizer=state, diverging=is_astray)

    def moved(self, target, chains):
        return chains._replace(potential_energy=jax.vmap(lambda z: -target.log_density(z))(chains.z))
