"""A minimal gated recurrence: all products of matrices stand before it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.precision import at_least_single


class MinimalGated(eqx.Module):
    """h_t = (1 - g_t) h_{t-1} + g_t c_t, with gates g and candidates c of the input alone.

    Source: L. Feng et al., "Were RNNs all we needed?" (2024), minGRU.

    Attributes:
        is_backward: whether time runs backward.
    """

    weight: Float[Array, "input two_hidden"]
    bias: Float[Array, " two_hidden"]
    is_backward: bool = eqx.field(static=True)

    def __init__(self, input_size: int, hidden_size: int, is_backward: bool, key: Array):
        self.weight = jax.random.normal(key, (input_size, 2 * hidden_size)) * input_size**-0.5
        # Gates half open would forget within two frames.
        self.bias = jnp.concatenate([jnp.full(hidden_size, -1.0), jnp.zeros(hidden_size)])
        self.is_backward = is_backward

    def __call__(self, values: Float[Array, "t input"]) -> Float[Array, "t hidden"]:
        products = at_least_single(values @ self.weight + self.bias[None])
        gates, candidates = jnp.split(products, 2, -1)
        gates, candidates = jax.nn.sigmoid(gates), jnp.tanh(candidates)

        def step(state: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            gate, candidate = now
            state = state + gate * (candidate - state)
            return state, state

        _, states = jax.lax.scan(step, jnp.zeros_like(gates[0]), (gates, candidates), reverse=self.is_backward)
        return states
