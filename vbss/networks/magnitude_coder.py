"""Encoders and decoders of magnitudes, by rectified layers: the variational autoencoder of one speaker in a mixture.

Source: Pandey, Kumar and Namboodiri, "Monaural audio source separation using variational autoencoders" (2018).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.perceptron import Perceptron
from vbss.networks.spectral_coder import SpectralEncoder, split_normal

_SMALLEST, _LARGEST = -14.0, 20.0  # of log variances: magnitudes of 60 dB below the mean count as known


class MagnitudeEncoder(SpectralEncoder):
    """q(codes | powers) of each frame by itself, from its magnitudes as they are, at a mean power of 1.

    Attributes:
        layers: from magnitudes to both halves.
    """

    layers: Perceptron

    def __init__(self, num_frequencies: int, hidden_sizes: Sequence[int], num_codes: int, *, key: Array):
        self.layers = Perceptron([num_frequencies, *hidden_sizes, 2 * num_codes], activation="relu", key=key)

    def __call__(self, power):
        mean = power.mean((-2, -1), keepdims=True)
        return split_normal(self.layers(jnp.sqrt(power / jnp.where(mean > 0, mean, 1))))


class MagnitudeDecoder(eqx.Module):
    """p(magnitudes | codes) of each frame by itself: from codes to means and one log variance for all frequencies.

    One variance makes loud and faint frequencies count by their errors, as the paper has it (4). With a variance of
    each frequency the faint ones, which are many, would count as much as the loud.

    Attributes:
        layers: from codes to the means, which are made positive, and the log variance.
        num_codes: L, of a frame.
        num_frequencies: F.
    """

    layers: Perceptron
    num_codes: int = eqx.field(static=True)
    num_frequencies: int = eqx.field(static=True)

    def __init__(self, num_codes: int, hidden_sizes: Sequence[int], num_frequencies: int, *, key: Array):
        self.num_codes, self.num_frequencies = num_codes, num_frequencies
        self.layers = Perceptron([num_codes, *hidden_sizes, num_frequencies + 1], activation="relu", key=key)

    def __call__(self, codes: Float[Array, "*b t l"]) -> tuple[Float[Array, "*b t f"], Float[Array, "*b t 1"]]:
        values = self.layers(codes)
        return jax.nn.softplus(values[..., :-1]), jnp.clip(values[..., -1:], _SMALLEST, _LARGEST)
