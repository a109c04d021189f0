"""Coders of codes that are known roughly, such as where a network heard them in a mixture."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.errors import InputError
from vbss.networks.spectral_coder import SpectralDecoder, SpectralEncoder


class InformedDecoder(SpectralDecoder):
    """Another decoder of loc + scale * codes: of standard normal codes, whose own are then N(loc, scale^2).

    In the place of a decoder it gives a program another prior of its codes, such as what an encoder says of them
    (`vbss.separate_voices`), and inference coordinates in which that is of unit width.

    Attributes:
        decoder: the other.
        loc, scale: of each frame's codes. Codes of another number of frames raise an InputError.
    """

    decoder: SpectralDecoder
    loc: Float[Array, "t l"]
    scale: Float[Array, "t l"]
    num_codes: int = eqx.field(static=True)
    num_frequencies: int = eqx.field(static=True)

    def __init__(self, decoder: SpectralDecoder, loc: Float[Array, "t l"], scale: Float[Array, "t l"]):
        self.decoder, self.loc, self.scale = decoder, loc, scale
        self.num_codes, self.num_frequencies = decoder.num_codes, decoder.num_frequencies

    def __call__(self, codes):
        if codes.shape[-2:] != self.loc.shape:
            raise InputError(
                f"power must have {len(self.loc)} frames, of which the decoder was told, got {codes.shape[-2]}"
            )
        shape = (1,) * (codes.ndim - 2) + self.loc.shape
        return self.decoder(jnp.reshape(self.loc, shape) + jnp.reshape(self.scale, shape) * codes)


class InformedEncoder(SpectralEncoder):
    """What another encoder says, in the coordinates of an `InformedDecoder`.

    Attributes:
        encoder: the other.
        loc, scale: of each frame's codes.
    """

    encoder: SpectralEncoder
    loc: Float[Array, "t l"]
    scale: Float[Array, "t l"]

    def __call__(self, power):
        loc, scale = jax.lax.stop_gradient((self.loc, self.scale))
        mean, log_variance = self.encoder(power)
        return (mean - loc) / scale, log_variance - 2 * jnp.log(scale)
