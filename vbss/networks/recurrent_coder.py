"""Encoders and decoders that look at all of a sequence: the recurrent variational autoencoder.

Source: Leglaive, Alameda-Pineda, Girin and Horaud, "A recurrent variational autoencoder for speech enhancement" (2020),
the non-causal model. Its encoder draws codes one after another; this one says all of them at once, given the powers.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.perceptron import Perceptron
from vbss.networks.recurrent import Recurrent
from vbss.networks.spectral_coder import (
    LARGEST,
    SpectralDecoder,
    SpectralEncoder,
    level_features,
    split_normal,
)


class RecurrentEncoder(SpectralEncoder):
    """A bidirectional recurrence of long short-term memory over the powers, and a layer to both moments.

    Attributes:
        recurrent: over frames.
        layers: from its states to both halves.
        level_loc, level_scale: as of `FrameEncoder`.
    """

    recurrent: Recurrent
    layers: Perceptron
    level_loc: Float[Array, " f"]
    level_scale: Float[Array, " f"]

    def __init__(self, num_frequencies: int, hidden_size: int, num_codes: int, *, key: Array):
        key_recurrent, key_layers = jax.random.split(key)
        self.recurrent = Recurrent(num_frequencies, hidden_size, 1, cell="lstm", key=key_recurrent)
        self.layers = Perceptron([2 * hidden_size, 2 * num_codes], key=key_layers)
        self.level_loc, self.level_scale = jnp.zeros(num_frequencies), jnp.ones(num_frequencies)

    def __call__(self, power):
        features = level_features(power, self.level_loc, self.level_scale)
        return split_normal(self.layers(_over_time(self.recurrent, features)))

    def with_levels(self, loc: Float[Array, " f"], scale: Float[Array, " f"]) -> "RecurrentEncoder":
        """As of `FrameEncoder`."""
        return eqx.tree_at(lambda encoder: (encoder.level_loc, encoder.level_scale), self, (loc, scale))


class RecurrentDecoder(SpectralDecoder):
    """A bidirectional recurrence of long short-term memory over the codes, and a layer to log variances.

    Attributes:
        recurrent: over frames.
        layers: from its states to log variances.
    """

    recurrent: Recurrent
    layers: Perceptron
    num_codes: int = eqx.field(static=True)
    num_frequencies: int = eqx.field(static=True)

    def __init__(self, num_codes: int, hidden_size: int, num_frequencies: int, *, key: Array):
        key_recurrent, key_layers = jax.random.split(key)
        self.num_codes, self.num_frequencies = num_codes, num_frequencies
        self.recurrent = Recurrent(num_codes, hidden_size, 1, cell="lstm", key=key_recurrent)
        self.layers = Perceptron([2 * hidden_size, num_frequencies], key=key_layers)

    def __call__(self, codes):
        return jnp.clip(self.layers(_over_time(self.recurrent, codes)), -LARGEST, LARGEST)

    def with_levels(self, loc: Float[Array, " f"]) -> "RecurrentDecoder":
        """As of `FrameDecoder`."""
        return eqx.tree_at(lambda decoder: decoder.layers, self, self.layers.with_last_bias(loc))


def _over_time(recurrent: Recurrent, values: Float[Array, "*b t n"]) -> Float[Array, "*b t two_hidden"]:
    flat = values.reshape(-1, *values.shape[-2:])
    return jax.vmap(recurrent)(flat).reshape(*values.shape[:-1], -1)
