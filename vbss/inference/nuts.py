"""NumPyro's No-U-Turn sampler for many chains at once.

Source: Hoffman and Gelman, "The No-U-Turn Sampler" (2014); the warm-up is Stan's.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float
from numpyro.infer.hmc import HMCState, hmc

from vbss.context import relaxed_promotion
from vbss.inference.kernel import Kernel

LogDensity = Callable[[Float[Array, " size"]], Float[Array, ""]]
Chains = HMCState
"""States of NumPyro's kernel with a leading axis of chains."""


class NUTS(Kernel):
    """NumPyro's No-U-Turn sampler, which needs no tuning.

    Args:
        num_warmup: first draws, which adapt the step size and a diagonal mass matrix of each chain.
        target_accept: mean acceptance probability that the step size is adapted to.
        max_tree_depth: a trajectory has at most 2^max_tree_depth steps.
    """

    num_warmup: int = eqx.field(static=True)
    target_accept: float = eqx.field(static=True)
    max_tree_depth: int = eqx.field(static=True)

    def owns(self, chains):
        return isinstance(chains, HMCState)

    def begin(self, target, positions, key):
        init, _ = _kernel(target.log_density)
        with relaxed_promotion():
            keys = jax.random.split(key, positions.shape[0])
            return jax.vmap(lambda position, key: self._init(init, position, key))(positions, keys)

    def draw(self, target, chains):
        init, sample = _kernel(target.log_density)
        with relaxed_promotion():
            # The kernel learns its settings from `init`, whose state is not needed here.
            jax.eval_shape(lambda position, key: self._init(init, position, key), chains.z[0], chains.rng_key[0])
            return jax.vmap(sample)(chains)

    def moved(self, target, chains):
        energy, gradient = jax.vmap(jax.value_and_grad(lambda position: -target.log_density(position)))(chains.z)
        return chains._replace(potential_energy=energy, z_grad=gradient)

    def _init(self, init: Callable, position: Array, key: Array) -> HMCState:
        return init(
            position,
            self.num_warmup,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
            trajectory_length=None,
            rng_key=key,
        )


def _kernel(log_density: LogDensity) -> tuple[Any, Any]:
    return hmc(lambda position: -log_density(position), algo="NUTS")
