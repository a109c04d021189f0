"""The network that says q of a model's codes, from encoders of its sources."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.spectral_coder import SpectralEncoder

_LEAST = 0.01  # of a power is left at least: -20 dB


class CodeNetwork(eqx.Module):
    """q of codes, independent normals, for `vbss.AmortisedNormal` and `vbss.AmortisedEM`.

    Attributes:
        encoders: of each latent.
        names: of the latents.
        noise: power of steady noise at each frequency, which is taken off what encoders of clean sounds are shown; it
            is not moved by gradients.
    """

    encoders: tuple[SpectralEncoder, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    noise: Float[Array, " f"] | None = None

    def __call__(self, *powers: Float[Array, "n f"]) -> dict[str, tuple[Array, Array]]:
        """{latent: (mean, log variance)}, each (N, L), from the last of the program's arguments.

        That is what is heard: the mixture, where the program is given both a source and what it is heard in.
        """
        power = powers[-1]
        if self.noise is not None:
            power = jnp.maximum(power - jax.lax.stop_gradient(self.noise)[None], _LEAST * power)
        return {name: encoder(power) for name, encoder in zip(self.names, self.encoders, strict=True)}
