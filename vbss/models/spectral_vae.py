"""The variational autoencoder of spectra: what a source's short-time spectra may be, learnt from the source alone."""

from typing import Annotated

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.errors import InputError
from vbss.networks.spectral_coder import SpectralDecoder
from vbss.program import Model
from vbss.weights import Weights


class SpectralVAE(Model):
    """z_n ~ N(0, I), s_fn | z ~ N_C(0, v_fn(z)) with log v from a network.

    The phase of a circular normal is uniform and says nothing, so the program draws powers alone: |s_fn|^2 is
    exponential with mean v_fn. Its negative log density is the Itakura-Saito divergence of |s_fn|^2 from v_fn, up to a
    constant.

    Source: Bando, Mimura, Itoyama, Yoshii and Kawahara, "Statistical speech enhancement based on probabilistic
    integration of variational autoencoder and non-negative matrix factorization" (2018); Leglaive, Girin and Horaud, "A
    variance modeling framework based on variational autoencoders for speech enhancement" (2018).

    Attributes:
        decoder: says log v, (N, F), from codes (N, L); learnt by `vbss.train`.

    The program takes `power`, real (N, F) and not negative, of mean 1, and perhaps that of a mixture in which the
    source is heard, which a network that says q may look at, and nothing else. Sites: `codes` (z; N plates, L), `power`
    (N plates, F).
    """

    decoder: Annotated[SpectralDecoder, Weights()]

    def __call__(self, power: Float[Array, "n f"], mixture: Float[Array, "n f"] | None = None) -> None:
        with numpyro.plate("frames", power.shape[0]):
            codes = jnp.asarray(numpyro.sample("codes", standard_codes(self.decoder.num_codes, power.dtype)))
            rate = jnp.exp(-self.decoder(codes))
            numpyro.sample("power", dist.Exponential(rate).to_event(1), obs=power)

    def validate(self, power: Array, mixture: Array | None = None) -> None:
        check_power(power, self.decoder.num_frequencies)
        if mixture is not None:
            check_power(mixture, self.decoder.num_frequencies, "mixture")


def standard_codes(num_codes: int, dtype: jnp.dtype) -> dist.Distribution:
    """N(0, I) of a frame's codes."""
    origin = jnp.zeros(num_codes, dtype)
    return dist.Normal(origin, jnp.ones_like(origin)).to_event(1)


def check_power(power: Array, num_frequencies: int, name: str = "power") -> None:
    """Raise InputError for what are no powers at these frequencies, or silence."""
    if jnp.iscomplexobj(power) or power.ndim != 2 or power.shape[1] != num_frequencies:
        raise InputError(f"{name} must be real of shape (frames, {num_frequencies}), got {power.dtype} {power.shape}")
    if bool((power < 0).any()):
        raise InputError(f"{name} must not be negative")
    if not bool((power > 0).any()):
        raise InputError(f"{name} must not be silent: all of it is zero")
