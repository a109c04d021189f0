"""The distribution that a set of draws is."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from vbss.errors import InputError


class Empirical(dist.Distribution):
    """Equal mass on each of a number of draws, as inference by sampling leaves it.

    Args:
        samples: the draws along the first axis, (num_samples, *event), real or complex; the rest of the axes are the
            event, whose entries are drawn together.

    It has no density: `log_prob` raises `NotImplementedError`.

    Raises:
        InputError: if there is no draw.
    """

    samples: Array
    arg_constraints = {"samples": constraints.dependent}
    pytree_data_fields = ("samples",)

    def __init__(self, samples: Array):
        self.samples = jnp.asarray(samples)
        if self.samples.ndim == 0 or self.samples.shape[0] == 0:
            raise InputError(f"samples must be at least one draw along the first axis, got shape {self.samples.shape}.")
        super().__init__((), self.samples.shape[1:])

    @property
    def support(self):
        return constraints.dependent(is_discrete=False, event_dim=self.event_dim)

    def sample(self, key, sample_shape=()):
        assert key is not None
        return self.samples[jax.random.randint(key, sample_shape, 0, self.samples.shape[0])]

    def log_prob(self, value):
        raise NotImplementedError("a set of draws has no density: use its mean, variance or sample")

    @property
    def mean(self):
        return self.samples.mean(0)

    @property
    def variance(self):
        """E|x - mean|^2 of each entry, real."""
        return self.samples.var(0)
