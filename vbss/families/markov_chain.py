"""The family of discrete Markov chains: filter, smoother, paths and the best path from one forward recursion."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from vbss.families.base import Natural, StatisticsFamily

_LOG_ZERO = -1e30  # stands for log 0: 0 * log 0 must be 0, and the number must exist in float32


class DiscreteChain(StatisticsFamily):
    """Chains z_1, ..., z_T of K states: log q = sum_t <onehot_t, z_t> + sum_t <pair_t, z_t z_{t+1}'> - A.

    Natural parameters are log potentials `onehot` (*batch, T, K) and `pair` (*batch, T-1, K, K), rows the earlier
    state; what one of them gains the other may lose without a change of the chain. Values are integers (*batch, T).

    The means are the gradient of the log partition, written out as the forward-backward algorithm: both directions in
    one recursion, which keeps nothing of size K^2 for a backward pass.
    """

    axis: ClassVar[int] = -1

    def log_partition(self, natural):
        _, last, log_scale = _forward(natural, jax.nn.logsumexp)
        return jax.nn.logsumexp(last, -1) + log_scale

    def means(self, natural):
        forward, backward, _ = _both_ways(natural)
        between = forward[..., :-1, :, None] + natural["pair"] + backward[..., 1:, None, :]
        num_states = between.shape[-1]
        pair = jax.nn.softmax(between.reshape(*between.shape[:-2], num_states**2), -1).reshape(between.shape)
        return {"onehot": jax.nn.softmax(forward + backward - natural["onehot"], -1), "pair": pair}

    def natural(self, means):
        # The initial probabilities and those of each transition.
        smallest = jnp.finfo(means["onehot"].dtype).tiny
        log_probs = jnp.log(jnp.maximum(means["onehot"], smallest))
        log_pairs = jnp.log(jnp.maximum(means["pair"], smallest))
        return {
            "onehot": jnp.zeros_like(log_probs).at[..., 0, :].set(log_probs[..., 0, :]),
            "pair": log_pairs - log_probs[..., :-1, :, None],
        }

    def entropy(self, natural):
        # The recursion of the means has the log partition, too.
        return _both_ways(natural)[2] - self.inner(natural, self.means(natural))

    def sample(self, natural, key):
        """Whole paths: forward filter, backward sampling."""
        messages, last, _ = _forward(natural, jax.nn.logsumexp)
        return _backward(messages, last, natural["pair"], key, lambda logits, key: jax.random.categorical(key, logits))

    def mode(self, natural):
        """The most probable path (Viterbi)."""
        messages, last, _ = _forward(natural, jnp.max)
        return _backward(messages, last, natural["pair"], jax.random.key(0), lambda logits, key: logits.argmax(-1))

    def mode_statistics(self, natural):
        logits = natural["onehot"]
        onehot = jax.nn.one_hot(self.mode(natural), logits.shape[-1], dtype=logits.dtype)
        return {"onehot": onehot, "pair": onehot[..., :-1, :, None] * onehot[..., 1:, None, :]}

    def perturbed(self, natural, key):
        # Tempered first: noise would not move the probabilities of a certain path.
        key_onehot, key_pair = jax.random.split(key)
        onehot, pair = natural["onehot"], natural["pair"]
        tempered = jnp.log(self.means(natural)["onehot"] + 1 / onehot.shape[-1])
        return {
            "onehot": tempered + jax.random.normal(key_onehot, onehot.shape, onehot.dtype),
            "pair": jax.random.normal(key_pair, pair.shape, pair.dtype),
        }

    def distribution(self, natural):
        """The marginals over states, one categorical for each time."""
        return dist.CategoricalProbs(self.means(natural)["onehot"])

    def natural_of(self, fn: Any):
        """Of a `vbss.distributions.MarkovChain`."""
        shape = (*fn.batch_shape, fn.length, fn.log_initial.shape[-1])
        log_initial, log_transition = (jnp.maximum(p, _LOG_ZERO) for p in (fn.log_initial, fn.log_transition))
        onehot = jnp.zeros(shape, log_initial.dtype).at[..., 0, :].set(log_initial)
        pair = jnp.broadcast_to(log_transition[..., None, :, :], (*shape[:-2], shape[-2] - 1, shape[-1], shape[-1]))
        return {"onehot": onehot, "pair": pair}


def _both_ways(
    natural: Natural,
) -> tuple[Float[Array, "*batch time k"], Float[Array, "*batch time k"], Float[Array, "*batch"]]:
    """Log sums over all beginnings and over all ends of a path, both with the state's own potential, each but for a
    shift; and the log partition."""
    unary, pair = natural["onehot"], natural["pair"]
    reversed_pair = jnp.flip(jnp.swapaxes(pair, -1, -2), -3)
    twice = {"onehot": jnp.stack([unary, jnp.flip(unary, -2)]), "pair": jnp.stack([pair, reversed_pair])}
    messages, last, log_scale = _forward(twice, jax.nn.logsumexp)
    messages = jnp.moveaxis(jnp.concatenate([messages, last[None]]), 0, -2)
    return messages[0], jnp.flip(messages[1], -2), jax.nn.logsumexp(last[0], -1) + log_scale[0]


def _forward(
    natural: Natural, combine: Callable[[Array, int], Array]
) -> tuple[Float[Array, "steps *batch k"], Float[Array, "*batch k"], Float[Array, "*batch"]]:
    """Messages log sum (or max) over all beginnings of a path that reach a state, each less its largest entry.

    Returns:
        Those of the times before the last, time first; that of the last; and the sum of what was taken off.
    """
    unary, pair = natural["onehot"], natural["pair"]

    def scaled(message):
        # A shift that is added again in the end: nothing depends on it, so neither does the gradient.
        shift = jax.lax.stop_gradient(message.max(-1))
        return message - shift[..., None], shift

    def step(carry, potentials):
        message, log_scale = carry
        here, between = potentials
        following, shift = scaled(combine(message[..., :, None] + between, -2) + here)
        return (following, log_scale + shift), message

    potentials = jnp.moveaxis(unary[..., 1:, :], -2, 0), jnp.moveaxis(pair, -3, 0)
    (last, log_scale), messages = jax.lax.scan(step, scaled(unary[..., 0, :]), potentials)
    return messages, last, log_scale


def _backward(
    messages: Float[Array, "steps *batch k"],
    last: Float[Array, "*batch k"],
    pair: Float[Array, "*batch steps k k"],
    key: Array,
    choose: Callable[[Array, Array], Array],
) -> Int[Array, "*batch time"]:
    """A path from its end: each state chosen given the one after it."""
    key_last, key_rest = jax.random.split(key)

    def step(following, inputs):
        message, between, key = inputs
        column = jnp.take_along_axis(between, following[..., None, None], -1)[..., 0]
        state = choose(message + column, key)
        return state, state

    final = choose(last, key_last)
    inputs = messages, jnp.moveaxis(pair, -3, 0), jax.random.split(key_rest, len(messages))
    _, states = jax.lax.scan(step, final, inputs, reverse=True)
    return jnp.moveaxis(jnp.concatenate([states, final[None]]), 0, -1)
