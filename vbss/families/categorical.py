"""The categorical family of one-hot vectors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from vbss.distributions.discrete import LOG_ZERO, Indicator
from vbss.families.base import StatisticsFamily


class Categorical(StatisticsFamily):
    """One of K states, read as a one-hot vector: log q = <logits, onehot> - A.

    Natural parameters are `onehot`, unnormalised log-probabilities, of the batch's shape with the K states inserted at
    `axis`; members whose logits differ by one number are the same. Values are integers of the batch's shape.

    Args:
        axis: where the states stand, counted from the end.
    """

    axis: int = eqx.field(static=True, default=-1)

    def log_partition(self, natural):
        return jax.nn.logsumexp(natural["onehot"], self.axis)

    def means(self, natural):
        return {"onehot": jax.nn.softmax(natural["onehot"], self.axis)}

    def natural(self, means):
        probs = means["onehot"]
        return {"onehot": jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))}

    def entropy(self, natural):
        # Both share one exponential with `means`, which exp(log_softmax) would not.
        log_probs = jax.nn.log_softmax(natural["onehot"], self.axis)
        return -(jax.nn.softmax(natural["onehot"], self.axis) * log_probs).sum(self.axis)

    def kl(self, natural, other):
        log_ratio = jax.nn.log_softmax(natural["onehot"], self.axis) - jax.nn.log_softmax(other["onehot"], self.axis)
        return (jax.nn.softmax(natural["onehot"], self.axis) * log_ratio).sum(self.axis)

    def inner(self, natural, statistics):
        return (natural["onehot"] * statistics["onehot"]).sum(self.axis)

    def sample(self, natural, key):
        return jax.random.categorical(key, natural["onehot"], self.axis)

    def mode(self, natural):
        return natural["onehot"].argmax(self.axis)

    def mode_statistics(self, natural):
        logits = natural["onehot"]
        return {
            "onehot": jax.nn.one_hot(self.mode(natural), logits.shape[self.axis], dtype=logits.dtype, axis=self.axis)
        }

    def perturbed(self, natural, key):
        # Tempered first: noise would not move the probabilities of a certain state.
        logits = natural["onehot"]
        tempered = jnp.log(jax.nn.softmax(logits, self.axis) + 1 / logits.shape[self.axis])
        return {"onehot": tempered + jax.random.normal(key, logits.shape, logits.dtype)}

    def distribution(self, natural):
        """Over the batch, with the states last."""
        log_probs = jnp.moveaxis(jax.nn.log_softmax(natural["onehot"], self.axis), self.axis, -1)
        return Indicator(log_probs, self.axis, validate_args=False)

    def natural_of(self, fn: Any):
        log_probs = jnp.maximum(jax.nn.log_softmax(fn.logits, -1), LOG_ZERO)
        return {"onehot": jnp.moveaxis(log_probs, -1, self.axis)}
