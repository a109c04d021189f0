"""The family of discrete Markov chains: filter, smoother, paths and the best path from one forward recursion."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from vbss.distributions.discrete import LOG_ZERO
from vbss.families.base import Natural, StatisticsFamily
from vbss.families.chain import Chain


class SmoothedStates(NamedTuple):
    """The expected statistics of a chain of states, and its entropy, of shape (*batch,)."""

    means: Natural
    entropy: Array


class DiscreteChain(StatisticsFamily, Chain):
    """Chains z_1, ..., z_T of K states: log q = sum_t <onehot_t, z_t> + sum_t <pair_t, z_t z_{t+1}'> - A.

    Natural parameters are log potentials `onehot` (*batch, T, K) and `pair` (*batch, T-1, K, K), rows the earlier
    state; what one of them gains the other may lose without a change of the chain. Values are integers (*batch, T).

    The means are the gradient of the log partition, written out: a filter in logarithms, for potentials that are far
    apart, then the probabilities of each state given the one after it, and a smoother in these. The entropy is that of
    the same probabilities, so that it loses nothing to a difference of sums over the whole chain.
    """

    axis: ClassVar[int] = -1

    def log_partition(self, natural):
        messages, shifts = _scaled(natural["onehot"] + _predictions(natural, jax.nn.logsumexp))
        return jax.nn.logsumexp(messages[..., -1, :], -1) + shifts.sum(-1)

    def smoothed(self, natural):
        log_last, log_conditional = _given_following(natural)
        conditional = jnp.exp(log_conditional)

        def step(following, conditional):
            # Divided, as the rounding of large potentials must not add up over the chain.
            state = (conditional * following[..., None, :]).sum(-1) / following.sum(-1, keepdims=True)
            return state, state

        last = jnp.exp(log_last)
        _, states = jax.lax.scan(step, last, jnp.moveaxis(conditional, -3, 0), reverse=True)
        onehot = jnp.moveaxis(jnp.concatenate([states, last[None]]), 0, -2)
        pair = conditional * onehot[..., 1:, None, :]
        # Of the last state, and of each state given the one after it.
        entropy = -(last * log_last).sum(-1) - (pair * log_conditional).sum((-3, -2, -1))
        return SmoothedStates({"onehot": onehot, "pair": pair}, entropy)

    def means(self, natural):
        return self.smoothed(natural).means

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
        return self.smoothed(natural).entropy

    def sample(self, natural, key):
        """Whole paths: forward filter, backward sampling."""
        messages, _ = _scaled(natural["onehot"] + _predictions(natural, jax.nn.logsumexp))
        return _backward(messages, natural["pair"], key, lambda logits, key: jax.random.categorical(key, logits))

    def mode(self, natural):
        """The most probable path (Viterbi)."""
        messages, _ = _scaled(natural["onehot"] + _predictions(natural, jnp.max))
        return _backward(messages, natural["pair"], jax.random.key(0), lambda logits, key: logits.argmax(-1))

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
        log_initial, log_transition = (jnp.maximum(p, LOG_ZERO) for p in (fn.log_initial, fn.log_transition))
        onehot = jnp.zeros(shape, log_initial.dtype).at[..., 0, :].set(log_initial)
        pair = jnp.broadcast_to(log_transition[..., None, :, :], (*shape[:-2], shape[-2] - 1, shape[-1], shape[-1]))
        return {"onehot": onehot, "pair": pair}


def _predictions(natural: Natural, combine: Callable[[Array, int], Array]) -> Float[Array, "*batch time k"]:
    """Log sum (or max) over all beginnings of a path that lead to a state, without its own potential.

    Each is less the largest message of the time before, so that none grows with the length of the chain.
    """
    unary, pair = natural["onehot"], natural["pair"]

    def step(prediction, potentials):
        here, between = potentials
        message, _ = _scaled(prediction + here)
        return combine(message[..., :, None] + between, -2), prediction

    # One array a time and nothing else: all that can be had from it outside is several times dearer in the recursion.
    potentials = jnp.moveaxis(unary[..., :-1, :], -2, 0), jnp.moveaxis(pair, -3, 0)
    last, predictions = jax.lax.scan(step, jnp.zeros_like(unary[..., 0, :]), potentials)
    return jnp.moveaxis(jnp.concatenate([predictions, last[None]]), 0, -2)


def _scaled(messages: Float[Array, "*batch k"]) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch"]]:
    """Messages less their largest entry, and that."""
    # The shift is added again in the end: nothing depends on it, so neither does the gradient.
    shift = jax.lax.stop_gradient(messages.max(-1))
    return messages - shift[..., None], shift


def _given_following(natural: Natural) -> tuple[Float[Array, "*batch k"], Float[Array, "*batch steps k k"]]:
    """The log-probabilities of the last state, and of each other given the one after it (columns)."""
    predictions = _predictions(natural, jax.nn.logsumexp)
    messages, _ = _scaled(natural["onehot"] + predictions)
    # No term of a sum is above the sum, whatever the rounding of large potentials.
    log_conditional = messages[..., :-1, :, None] + natural["pair"] - predictions[..., 1:, None, :]
    return jax.nn.log_softmax(messages[..., -1, :], -1), log_conditional


def _backward(
    messages: Float[Array, "*batch time k"],
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

    final = choose(messages[..., -1, :], key_last)
    steps = jnp.moveaxis(messages[..., :-1, :], -2, 0)
    inputs = steps, jnp.moveaxis(pair, -3, 0), jax.random.split(key_rest, len(steps))
    _, states = jax.lax.scan(step, final, inputs, reverse=True)
    return jnp.moveaxis(jnp.concatenate([states, final[None]]), 0, -1)
