"""Discrete distributions whose draws programs read as one-hot vectors."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from vbss.distributions.constraints import log_weights

LOG_ZERO = -1e30  # stands for log 0: 0 * log 0 must be 0, and the number must exist in float32


class Indicator(dist.CategoricalLogits):
    """A categorical variable that hands on a one-hot vector.

    Args:
        logits: log-probabilities (-inf allowed), shape (*batch, K). Sampling and NumPyro's `log_prob` normalise them;
            the engine's linear form does not, so that its gradient in them is the vector of expected counts.
        axis: where the states stand in the one-hot array, counted from its end. The last place is the natural one; a
            long plate in the last place is the fast one.

    Sufficient statistic: `onehot`, the batch with K states inserted at `axis`.
    """

    logits: Array
    arg_constraints = {"logits": log_weights}
    pytree_aux_fields = ("axis",)

    def __init__(self, logits, axis: int = -1, *, validate_args=None):
        if axis >= 0:
            raise ValueError(f"axis must be negative (counted from the end of the one-hot array), got {axis}")
        self.axis = axis
        super().__init__(logits, validate_args=validate_args)

    def sufficient_statistics(self, value) -> dict[str, Array]:
        onehot = jax.nn.one_hot(value, self.logits.shape[-1], dtype=self.logits.dtype)
        return {"onehot": jnp.moveaxis(onehot, -1, self.axis)}

    def expected_log_prob(self, statistics: dict[str, Array]) -> Array:
        onehot = statistics["onehot"]
        logits = self.logits.reshape(*(1,) * (onehot.ndim - self.logits.ndim), *self.logits.shape)
        log_probs = jnp.maximum(jnp.moveaxis(logits, -1, self.axis), LOG_ZERO)
        return (onehot * log_probs).sum(self.axis)


class MarkovChain(dist.Distribution):
    """A discrete Markov chain z_1, ..., z_T as one site.

    Args:
        log_initial: log p(z_1), shape (*batch, K); -inf allowed here and below.
        log_transition: log p(z_{t+1} = j | z_t = i), shape (*batch, K, K), rows i.
        length: T >= 2.

    Values are integers (*batch, T). Sufficient statistics: `onehot` (*batch, T, K) and `pair` (*batch, T-1, K, K).

    Raises:
        ValueError: if the arrays do not agree on K, or the length is below 2.
    """

    arg_constraints = {"log_initial": log_weights, "log_transition": constraints.independent(log_weights, 1)}
    pytree_data_fields = ("log_initial", "log_transition")
    pytree_aux_fields = ("length",)

    def __init__(self, log_initial: Array, log_transition: Array, length: int):
        num_states = log_initial.shape[-1]
        if log_transition.shape[-2:] != (num_states, num_states):
            raise ValueError(
                f"log_transition must end in ({num_states}, {num_states}) as log_initial has {num_states} states, got "
                f"shape {log_transition.shape}"
            )
        if length < 2:
            raise ValueError(f"length must be at least 2, got {length}")
        self.log_initial = log_initial
        self.log_transition = log_transition
        self.length = length
        batch_shape = jnp.broadcast_shapes(log_initial.shape[:-1], log_transition.shape[:-2])
        super().__init__(batch_shape, (length,))

    @property
    def support(self):
        return constraints.independent(constraints.integer_interval(0, self.log_initial.shape[-1] - 1), 1)

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, *self.batch_shape)
        assert key is not None
        first_key, *keys = jax.random.split(key, self.length)
        first = jax.random.categorical(first_key, self.log_initial, shape=shape)
        transition = jnp.broadcast_to(self.log_transition, (*shape, *self.log_transition.shape[-2:]))

        def step(previous, key):
            rows = jnp.take_along_axis(transition, previous[..., None, None], -2)[..., 0, :]
            state = jax.random.categorical(key, rows)
            return state, state

        _, rest = jax.lax.scan(step, first, jnp.stack(keys))
        return jnp.concatenate([first[..., None], jnp.moveaxis(rest, 0, -1)], -1)

    @validate_sample
    def log_prob(self, value):
        return self.expected_log_prob(self.sufficient_statistics(value))

    def sufficient_statistics(self, value) -> dict[str, Array]:
        onehot = jax.nn.one_hot(value, self.log_initial.shape[-1], dtype=self.log_initial.dtype)
        return {"onehot": onehot, "pair": onehot[..., :-1, :, None] * onehot[..., 1:, None, :]}

    def expected_log_prob(self, statistics: dict[str, Array]) -> Array:
        initial = (statistics["onehot"][..., 0, :] * jnp.maximum(self.log_initial, LOG_ZERO)).sum(-1)
        transition = jnp.maximum(self.log_transition, LOG_ZERO)[..., None, :, :]
        return initial + (statistics["pair"] * transition).sum((-3, -2, -1))
