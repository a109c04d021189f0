"""The network that says q of a model's codes, from encoders of its sources."""

import equinox as eqx
from jaxtyping import Array, Float

from vbss.networks.spectral_coder import SpectralEncoder


class CodeNetwork(eqx.Module):
    """q of codes, independent normals, for `vbss.AmortisedNormal` and `vbss.AmortisedEM`.

    Attributes:
        encoders: of each latent.
        names: of the latents.
    """

    encoders: tuple[SpectralEncoder, ...]
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, power: Float[Array, "n f"]) -> dict[str, tuple[Array, Array]]:
        """{latent: (mean, log variance)}, each (N, L)."""
        return {name: encoder(power) for name, encoder in zip(self.names, self.encoders, strict=True)}
