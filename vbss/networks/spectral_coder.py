"""Encoders and decoders of variational autoencoders of spectra: between the powers of frames and their codes.

An encoder takes powers (*batch, frames, F) and says mean and log variance of q(codes), each (*batch, frames, L). A
decoder takes codes and says the log of the variances (*batch, frames, F). Those here look at each frame by itself;
those of `vbss.networks.recurrent_coder` at all of a sequence.
"""

from abc import abstractmethod
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vbss.networks.perceptron import Perceptron

_FLOOR = 1e-6  # of powers, whose mean over a sequence is 1: -60 dB
LARGEST = 20.0  # of log variances, by which exponentials stay far from the ends of float32


class SpectralEncoder(eqx.Module):
    """q(codes | powers): from powers to mean and log variance, which do not depend on the powers' level."""

    @abstractmethod
    def __call__(self, power: Float[Array, "*b t f"]) -> tuple[Float[Array, "*b t l"], Float[Array, "*b t l"]]: ...


class SpectralDecoder(eqx.Module):
    """p(powers | codes): from codes to log variances.

    Attributes:
        num_codes: L, of a frame.
        num_frequencies: F.
    """

    num_codes: eqx.AbstractVar[int]
    num_frequencies: eqx.AbstractVar[int]

    @abstractmethod
    def __call__(self, codes: Float[Array, "*b t l"]) -> Float[Array, "*b t f"]: ...


def log_levels(power: Float[np.ndarray, "t f"]) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Mean and standard deviation over frames of each frequency's log power, the mean power of all being 1."""
    level = np.log(power / power.mean() + _FLOOR)
    return level.mean(0), level.std(0) + _FLOOR


def level_features(power: Float[Array, "*b t f"], loc: Array, scale: Array) -> Float[Array, "*b t f"]:
    """Log powers, standardised at each frequency; of a sequence of any level, whose mean power counts as 1.

    The standard is not moved by gradients.
    """
    loc, scale = jax.lax.stop_gradient((loc, scale))
    mean = power.mean((-2, -1), keepdims=True)
    level = jnp.log(power / jnp.where(mean > 0, mean, 1) + _FLOOR)
    shape = (1,) * (power.ndim - 1)
    return (level - loc.reshape(*shape, -1)) / scale.reshape(*shape, -1)


def split_normal(values: Float[Array, "*b t two_l"]) -> tuple[Float[Array, "*b t l"], Float[Array, "*b t l"]]:
    """Mean and log variance from the outputs of a network."""
    mean, log_variance = jnp.split(values, 2, -1)
    return mean, jnp.clip(log_variance, -LARGEST, LARGEST)


class FrameEncoder(SpectralEncoder):
    """An encoder of each frame by itself.

    Attributes:
        layers: from standardised log powers to both halves.
        level_loc, level_scale: mean and standard deviation of the log powers of each frequency, which are not learnt
            by gradients but read from data.
    """

    layers: Perceptron
    level_loc: Float[Array, " f"]
    level_scale: Float[Array, " f"]

    def __init__(self, num_frequencies: int, hidden_sizes: Sequence[int], num_codes: int, *, key: Array):
        self.layers = Perceptron([num_frequencies, *hidden_sizes, 2 * num_codes], key=key)
        self.level_loc, self.level_scale = jnp.zeros(num_frequencies), jnp.ones(num_frequencies)

    def __call__(self, power):
        return split_normal(self.layers(level_features(power, self.level_loc, self.level_scale)))

    def with_levels(self, loc: Float[Array, " f"], scale: Float[Array, " f"]) -> "FrameEncoder":
        """The same, knowing mean and standard deviation of the log powers of each frequency (`log_levels`)."""
        return eqx.tree_at(lambda encoder: (encoder.level_loc, encoder.level_scale), self, (loc, scale))


class FrameDecoder(SpectralDecoder):
    """A decoder of each frame by itself.

    Attributes:
        layers: from codes to log variances.
    """

    layers: Perceptron
    num_codes: int = eqx.field(static=True)
    num_frequencies: int = eqx.field(static=True)

    def __init__(self, num_codes: int, hidden_sizes: Sequence[int], num_frequencies: int, *, key: Array):
        self.num_codes, self.num_frequencies = num_codes, num_frequencies
        self.layers = Perceptron([num_codes, *hidden_sizes, num_frequencies], key=key)

    def __call__(self, codes):
        return jnp.clip(self.layers(codes), -LARGEST, LARGEST)

    def with_levels(self, loc: Float[Array, " f"]) -> "FrameDecoder":
        """The same, beginning at these log variances."""
        return eqx.tree_at(lambda decoder: decoder.layers, self, self.layers.with_last_bias(loc))
