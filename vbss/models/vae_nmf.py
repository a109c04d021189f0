"""Sources that trained autoencoders know, in noise of low rank: speech enhancement and separation of one microphone."""

from collections.abc import Mapping, Sequence
from math import log1p
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Complex, Float

from vbss.additive import Additive
from vbss.errors import InputError, whole_number
from vbss.models.spectral_vae import check_power, standard_codes
from vbss.networks.spectral_coder import SpectralDecoder
from vbss.posteriors import AbstractPosterior
from vbss.program import Model, point

_DRAWS_AT_ONCE = 10
_QUIET = 0.3  # quantile over time at which steady noise is looked for: speech leaves more of each frequency alone
_SILENT = 1e-6  # of the mean power: 60 dB below it
_FLOOR = 1e-6  # of a noise's power at the start, the mean of all being 1: -60 dB


class VAENMF(Model):
    """x_fn = sum_j s_jfn + b_fn: sources of variances that networks decode, and noise of non-negative factors.

        s_jfn | z_j ~ N_C(0, c_fj g_jn v_jfn(z_j)),   z_jn ~ N(0, I),   b_fn ~ N_C(0, sum_k W_fk H_kn)

    Sources and noise are integrated out: x_fn ~ N_C(0, S_fn), S the sum of their variances, and so |x_fn|^2 is
    exponential with mean S_fn. Given codes z, the sources' posterior is normal again; `sources` is its mean over codes.
    Where a decoder couples no frames, codes of different frames are independent given the points. With one source this
    is the model of speech enhancement, with several that of separating speakers whose voices are known.

    Source: Leglaive, Girin and Horaud, "A variance modeling framework based on variational autoencoders for speech
    enhancement" (2018); the slides "Probabilistic audio-visual learning" (v3) for the same with other inference.

    Attributes:
        decoders: of each source j, as a `vbss.models.SpectralVAE` learnt it; fixed.
        num_noise_spectra: K, none at all if 0.

    The program takes `power` (|x|^2), real (N, F), not negative and of mean 1. Sites: `codes_0`, ... of each source (N
    plates, L), `power` (N plates, F). Points: `spectra` (F, J + K), the sources' colours c, which stay as a start says
    (1 by default), and then W; `activations` (J + K, N), gains g and then H.
    """

    decoders: tuple[SpectralDecoder, ...]
    num_noise_spectra: int = eqx.field(static=True)

    @classmethod
    def init(cls, decoders: SpectralDecoder | Sequence[SpectralDecoder], num_noise_spectra: int = 8) -> "VAENMF":
        """The model of these sources in noise.

        Raises:
            InputError: if there is no source, decoders are of different numbers of frequencies, or `num_noise_spectra`
                is negative.
        """
        decoders = (decoders,) if isinstance(decoders, SpectralDecoder) else tuple(decoders)
        sizes = {decoder.num_frequencies for decoder in decoders}
        if len(sizes) != 1:
            raise InputError(f"decoders must be one at least, all of the same frequencies, got {sorted(sizes)}")
        return cls(decoders, whole_number("num_noise_spectra", num_noise_spectra, 0))

    @property
    def num_sources(self) -> int:
        """J."""
        return len(self.decoders)

    def __call__(self, power: Float[Array, "n f"]) -> None:
        (num_frames, num_frequencies), dtype = power.shape, power.dtype
        size = self.num_sources + self.num_noise_spectra
        spectra = point("spectra", jnp.ones((num_frequencies, size), dtype), Additive(held=self.num_sources))
        activations = point("activations", jnp.ones((size, num_frames), dtype), Additive())
        with numpyro.plate("frames", num_frames):
            codes = [
                jnp.asarray(numpyro.sample(f"codes_{number}", standard_codes(decoder.num_codes, dtype)))
                for number, decoder in enumerate(self.decoders)
            ]
            variance = sum(self._variances(spectra, activations, codes))
            numpyro.sample("power", dist.Exponential(1 / variance).to_event(1), obs=power)

    def _variances(self, spectra: Array, activations: Array, codes: Sequence[Array]) -> list[Array]:
        """Of every source and then, if there is any, of the noise, (N, F)."""
        found = [
            spectra[:, number][None] * activations[number][:, None] * jnp.exp(decoder(z))
            for number, (decoder, z) in enumerate(zip(self.decoders, codes, strict=True))
        ]
        if self.num_noise_spectra:
            found.append(activations[self.num_sources :].T @ spectra[:, self.num_sources :].T)
        return found

    def start(self, key: Array, power: Float[Array, "n f"]) -> Mapping[str, Array]:
        """Spectra of the noise at random about what is steady, codes of zero; encoders know better."""
        key_spectra, key_activations = jax.random.split(key)
        (num_frames, num_frequencies), size = power.shape, self.num_noise_spectra
        # W and H have the mean 0.55 beside the noise, which K products share.
        noise = jnp.maximum(steady_noise(power), _FLOOR) / (0.55**2 * max(size, 1))
        spectra = noise[:, None] * jax.random.uniform(key_spectra, (num_frequencies, size), power.dtype, 0.1, 1)
        activations = jax.random.uniform(key_activations, (size, num_frames), power.dtype, 0.1, 1)
        sources = self.num_sources
        codes = {
            f"codes_{number}": jnp.zeros((num_frames, decoder.num_codes), power.dtype)
            for number, decoder in enumerate(self.decoders)
        }
        return codes | {
            "spectra": jnp.concatenate([jnp.ones((num_frequencies, sources), power.dtype), spectra], 1),
            "activations": jnp.concatenate([jnp.ones((sources, num_frames), power.dtype), activations]),
        }

    def expected_power(
        self, points: Mapping[str, Array], codes: Mapping[str, Array], power: Float[Array, "n f"]
    ) -> tuple[Float[Array, "n f"]]:
        """E[|s|^2 | x, z] of a source in noise: what an encoder of the source alone may be shown (`vbss.AmortisedEM`).

        Raises:
            InputError: if there are several sources.
        """
        if self.num_sources != 1:
            raise InputError(
                f"codes are read from an expected power where there is one source, here are {self.num_sources}"
            )
        own, *others = self._variances(points["spectra"], points["activations"], [codes["codes_0"]])
        share = own / sum(others, own)
        return (share**2 * power + (1 - share) * own,)

    def validate(self, power: Array) -> None:
        check_power(power, self.decoders[0].num_frequencies)

    @eqx.filter_jit
    def sources(
        self, posterior: AbstractPosterior, mixture: Complex[Array, "n f"], key: Array, num_draws: int = 10
    ) -> tuple[Complex[Array, "j n f"], Float[Array, "j n f"]]:
        """Mean and variance of every source's spectrum under the posterior.

        E[s_j | x] = E_z[v_j / S] x over draws of the codes; the variance is that given codes, v_j (S - v_j) / S, in the
        mean, and that of the means.

        Args:
            posterior: of `vbss.fit` on |mixture|^2, by any algorithm.
            mixture: the spectrum, of the same level.
            key: of the draws.
            num_draws: of the posterior.
        """
        draws = posterior.sample(key, num_draws)
        spectra: Any = posterior["spectra"]
        activations: Any = posterior["activations"]

        def of_draw(codes: list[Array]) -> tuple[Array, Array, Array]:
            variances = jnp.stack(self._variances(spectra, activations, codes))
            total, own = variances.sum(0)[None], variances[: self.num_sources]
            share = own / total
            return share, share**2, share * (total - own)

        # Samplers draw in JAX's default precision, whatever that of the data is.
        codes = [draws[f"codes_{number}"].astype(spectra.dtype) for number in range(self.num_sources)]
        moments = jax.lax.map(of_draw, codes, batch_size=_DRAWS_AT_ONCE)
        share, square, remaining = (moment.mean(0) for moment in moments)
        power = (mixture.real**2 + mixture.imag**2)[None]
        variance = remaining + jnp.maximum(square - share**2, 0) * power
        return share.astype(mixture.dtype) * mixture[None], variance


def steady_noise(power: Float[Array, "n f"]) -> Float[Array, " f"]:
    """The mean power of steady Gaussian noise at each frequency, from those frames in which little else is heard.

    Frames of digital silence, where not even the noise is heard, do not count.
    """
    has_sound = power.mean(1) >= _SILENT * power.mean()
    quantile = jnp.nanquantile(jnp.where(has_sound[:, None], power, jnp.nan), _QUIET, axis=0)
    return quantile / -log1p(-_QUIET)
