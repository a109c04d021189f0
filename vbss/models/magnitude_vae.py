"""The variational autoencoder of magnitudes: one speaker's, from what is heard of a mixture."""

from typing import Annotated

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.models.spectral_vae import check_power, standard_codes
from vbss.networks.magnitude_coder import MagnitudeDecoder
from vbss.program import Model
from vbss.weights import Weights


class MagnitudeVAE(Model):
    """z_n ~ N(0, I), |s_fn| | z ~ N(m_fn(z), v_n(z)) with m and log v from a network.

    What a network says of z need not come from s: with the mixture in which s is heard, E_q[log p(s | z)] -
    KL(q(z | mixture) || p(z)) is a bound of log p(s) still, and the mean m at q's mean is an estimate of |s|.

    Source: Pandey, Kumar and Namboodiri, "Monaural audio source separation using variational autoencoders" (2018),
    equations (1)-(8), whose divergence has the wrong sign in (8).

    Attributes:
        decoder: says m, (N, F), and log v, (N, 1), from codes (N, L); learnt by `vbss.train`.

    The program takes `power` (|s|^2), real (N, F) and not negative, and perhaps that of the mixture, which the network
    alone looks at. Sites: `codes` (z; N plates, L), `magnitude` (N plates, F).
    """

    decoder: Annotated[MagnitudeDecoder, Weights()]

    def __call__(self, power: Float[Array, "n f"], mixture: Float[Array, "n f"] | None = None) -> None:
        with numpyro.plate("frames", power.shape[0]):
            codes = jnp.asarray(numpyro.sample("codes", standard_codes(self.decoder.num_codes, power.dtype)))
            mean, log_variance = self.decoder(codes)
            magnitude = dist.Normal(mean, jnp.exp(log_variance / 2)).to_event(1)
            numpyro.sample("magnitude", magnitude, obs=jnp.sqrt(power))

    def validate(self, power: Array, mixture: Array | None = None) -> None:
        check_power(power, self.decoder.num_frequencies)
        if mixture is not None:
            check_power(mixture, self.decoder.num_frequencies, "mixture")
