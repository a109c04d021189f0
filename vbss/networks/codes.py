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

    def __call__(self, *powers: Float[Array, "n f"]) -> dict[str, tuple[Array, Array]]:
        """{latent: (mean, log variance)}, each (N, L), from the last of the program's arguments.

        That is what is heard: the mixture, where the program is given both a source and what it is heard in.
        """
        return {name: encoder(powers[-1]) for name, encoder in zip(self.names, self.encoders, strict=True)}
