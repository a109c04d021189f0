"""The mixture of complex angular central Gaussians: separation masks of a recording of any, unknown array."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.densities import ComplexNormal
from vbss.distributions import ComplexInverseWishart
from vbss.errors import InputError, positive, whole_number
from vbss.gated import Gated
from vbss.hermitian import packed_identity
from vbss.kinds import Simplex, Variance
from vbss.models import cacgmm_closed_forms, cacgmm_start
from vbss.models.bins import check_mixture, heard
from vbss.models.noise_class import of_classes, with_noise
from vbss.program import Model, indicator, point, statistics


class CACGMM(Model):
    """x_ft / |x_ft| | z_ft = k ~ cACG(B_fk), where z_ft ~ Cat(pi_t), B_fk ~ IW_C(M + w, w I).

    The density of the angular central Gaussian, (x^H B^-1 x)^-M / |B| up to a constant, is that of
    x ~ N_C(0, lambda B) with the power lambda of each bin and class at its maximum, which is how the program says it:
    levels do not count. Nor does the array: a B_fk is learnt for every source and frequency. The weights pi_t,
    which all frequencies share, say that the bins of a source rise and fall together; they alone make class k the same
    source at all frequencies, and `start` sees to it from the beginning. Equal weights for all frames, or each
    frequency with its own, leave the order of the classes open (`vbss.alignment.align_permutations`).

    Sources are told apart by their places only in microphones that do not all hear the same: whiten the mixture
    (`vbss.audio.sphering`). Source: Ito, Araki and Nakatani, "Complex angular central Gaussian mixture model for
    directional statistics in mask-based microphone array signal processing" (2016); Ito, Araki and Nakatani,
    "Permutation-free convolutive blind source separation via full-band clustering based on frequency-independent source
    presence priors" (2013), for pi_t. The prior is ours.

    Attributes:
        prior_weight: w > 0, how firmly B is held to a multiple of the identity: by 2 M + w frames.
        loading: relative white noise that every bin is taken to carry; see `vbss.ComplexNormal`.
        num_sources: K.
        has_noise: whether there is a class of noise beside the sources, the last one (`vbss.models.noise_class`).

    The program takes `mixture`, complex (F, T, M), and optionally `is_observed`, boolean (F, T): other bins are
    integrated out, whatever finite values they hold, as are silent ones, which have no direction. Sites: `source` (z;
    F, T plates, C states: the sources, and the noise if there is any), `spatial_covariance` (B, kept at its MAP; F, K
    plates), `mixture`. Points: `power` (lambda, (F, C, T)), `log_mixing_weights` (log pi, (T, C)).
    """

    prior_weight: Float[Array, ""]
    loading: Float[Array, ""]
    num_sources: int = eqx.field(static=True)
    has_noise: bool = eqx.field(static=True, default=False)

    at_mode = ("spatial_covariance",)
    schedule = ("log_mixing_weights", "spatial_covariance", "power", "source")

    @classmethod
    def init(
        cls, num_sources: int, *, has_noise: bool = False, prior_weight: float = 5.0, loading: float = 1e-3
    ) -> "CACGMM":
        """A model for any array and recording.

        Args:
            num_sources: K, at least 1.
            has_noise: whether there is a class of noise beside the sources.
            prior_weight: w.
            loading: relative white noise that every bin is taken to carry. In float32, 1e-3 is safe for any recording
                and 1e-4 for one whitened by `vbss.audio.sphering`.

        Raises:
            InputError: for a number out of its range.
        """
        num_sources = whole_number("num_sources", num_sources, 1)
        if not 0 <= loading < jnp.inf:
            raise InputError(f"loading must not be negative, got {loading!r}")
        weight = positive("prior_weight", prior_weight)
        # In single precision, so that the data's decides that of all else.
        return cls(jnp.asarray(weight, jnp.float32), jnp.asarray(loading, jnp.float32), num_sources, has_noise)

    @property
    def num_classes(self) -> int:
        """C: the sources, and the noise if there is any."""
        return self.num_sources + self.has_noise

    def prior(self, num_microphones: int, dtype: jnp.dtype) -> ComplexInverseWishart:
        """Of B at every frequency and of every class."""
        weight = self.prior_weight.astype(dtype)
        identity = packed_identity(num_microphones, dtype).reshape(1, 1, -1)
        return ComplexInverseWishart(weight + num_microphones, weight * identity)

    def __call__(self, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None) -> None:
        num_frequencies, num_frames, size = mixture.shape
        dtype = mixture.real.dtype

        uniform = jnp.full((num_frames, self.num_classes), -jnp.log(self.num_classes), dtype)
        log_mixing_weights = point("log_mixing_weights", uniform, Simplex())
        ones = jnp.ones((num_frequencies, self.num_classes, num_frames), dtype)
        power = point("power", ones, Variance(), given="source")
        is_heard = heard(mixture, is_observed)
        frequencies = numpyro.plate("frequencies", num_frequencies, dim=-2)

        with frequencies, numpyro.plate("sources", self.num_sources, dim=-1):
            covariance = statistics("spatial_covariance", self.prior(size, dtype))
        with frequencies, numpyro.plate("frames", num_frames, dim=-1):
            source = indicator("source", log_mixing_weights, axis=-2)
            covariance = of_classes(self, covariance)
            density = ComplexNormal(
                precision=("fkp", covariance["precision"]),
                log_determinant=("fk", covariance["log_determinant"]),
                power=("fkt", power),
                loading=("", self.loading.astype(dtype)),
            )
            gated = Gated("ft", {"fkt": source}, density).mask(is_heard)
            # What other bins hold must not reach a product, not even one with zero.
            numpyro.sample("mixture", gated, obs=jnp.where(is_heard[..., None], mixture, 0))

    def start(
        self, key: Array, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
    ) -> Mapping[str, Array]:
        """When each source is active (`vbss.models.cacgmm_start.common_activity`), from random masks."""
        return with_noise(self, cacgmm_start.common_activity(self, mixture, is_observed, key=key), mixture, is_observed)

    def given_covariances(
        self,
        mixture: Complex[Array, "f t m"],
        covariance: Float[Array, "f k p"],
        is_observed: Bool[Array, "f t"] | None = None,
    ) -> dict[str, Array]:
        """A start from spatial covariances (`vbss.models.cacgmm_start.given_covariances`)."""
        return with_noise(
            self, cacgmm_start.given_covariances(self, mixture, covariance, is_observed), mixture, is_observed
        )

    def closed_forms(self) -> Mapping[str, Callable]:
        return cacgmm_closed_forms.CLOSED_FORMS

    def validate(self, mixture: Array, is_observed: Array | None = None) -> None:
        check_mixture(mixture, is_observed)
