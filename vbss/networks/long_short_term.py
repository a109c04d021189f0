"""A recurrence of long short-term memory, with all products that do not depend on its state outside the loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.precision import at_least_single


class LongShortTerm(eqx.Module):
    """c_t = f_t c_{t-1} + i_t g_t, h_t = o_t tanh(c_t), with gates (i, f, g, o) of the input and of h_{t-1}.

    Only h_{t-1} times `recurrent_weight` is left in the loop, forward and backward: the input's products come before
    it, and the gradient of `recurrent_weight` is one product after it.

    Source: S. Hochreiter and J. Schmidhuber, "Long short-term memory" (1997), with the forget gate of F. Gers et al.

    Attributes:
        is_backward: whether time runs backward.
    """

    weight: Float[Array, "input four_hidden"]
    recurrent_weight: Float[Array, "hidden four_hidden"]
    bias: Float[Array, " four_hidden"]
    is_backward: bool = eqx.field(static=True)

    def __init__(self, input_size: int, hidden_size: int, is_backward: bool, key: Array):
        key_input, key_state = jax.random.split(key)
        self.weight = jax.random.normal(key_input, (input_size, 4 * hidden_size)) * input_size**-0.5
        self.recurrent_weight = jax.random.normal(key_state, (hidden_size, 4 * hidden_size)) * hidden_size**-0.5
        # Forget gates half open would forget within two frames.
        self.bias = jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), hidden_size)
        self.is_backward = is_backward

    def __call__(self, values: Float[Array, "t input"]) -> Float[Array, "t hidden"]:
        inputs = at_least_single(values @ self.weight + self.bias[None])
        return _states(inputs, self.recurrent_weight, self.is_backward)


def _recur(inputs: Array, weight: Array, is_backward: bool) -> tuple[Array, Array, Array]:
    """States h and c, and the activated gates."""

    def step(state: tuple[Array, Array], now: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        h, c = state
        i, f, g, o = jnp.split(now + (h.astype(weight.dtype) @ weight).astype(now.dtype), 4)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, jnp.concatenate([i, f, g, o]))

    zeros = jnp.zeros((weight.shape[0],), inputs.dtype)
    return jax.lax.scan(step, (zeros, zeros), inputs, reverse=is_backward)[1]


def _before(states: Array, is_backward: bool) -> Array:
    """The state that each step starts from."""
    zero = jnp.zeros_like(states[:1])
    return jnp.concatenate([states[1:], zero] if is_backward else [zero, states[:-1]])


def _states(inputs: Array, weight: Array, is_backward: bool) -> Array:
    @jax.custom_vjp
    def states(inputs: Array, weight: Array) -> Array:
        return _recur(inputs, weight, is_backward)[0]

    def forward(inputs: Array, weight: Array) -> tuple[Array, tuple]:
        h, c, gates = _recur(inputs, weight, is_backward)
        return h, (h, c, gates, weight)

    def backward(saved: tuple, change: Array) -> tuple[Array, Array]:
        h, c, gates, weight = saved
        transposed = weight.T

        def step(later: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
            (dh, dc), (dh_now, c_now, c_before, gates_now) = later, now
            i, f, g, o = jnp.split(gates_now, 4)
            dh, squashed = dh + dh_now, jnp.tanh(c_now)
            dc = dc + dh * o * (1 - squashed**2)
            changes = jnp.concatenate(
                [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g**2), dh * squashed * o * (1 - o)]
            )
            return ((changes.astype(weight.dtype) @ transposed).astype(dh.dtype), dc * f), changes

        zeros = jnp.zeros_like(h[0])
        inputs = (change, c, _before(c, is_backward), gates)
        changes = jax.lax.scan(step, (zeros, zeros), inputs, reverse=not is_backward)[1]
        product = _before(h, is_backward).astype(weight.dtype).T @ changes.astype(weight.dtype)
        return changes, product

    states.defvjp(forward, backward)
    return states(inputs, weight)
