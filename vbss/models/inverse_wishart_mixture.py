"""The inverse-Wishart mixture: one spatial covariance for each class, with the class's direction in its prior."""

import dataclasses
from collections.abc import Callable, Mapping
from math import isqrt

import equinox as eqx
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.densities import ComplexNormal
from vbss.distributions import ComplexInverseWishart
from vbss.distributions.complex_wishart import log_complex_multigamma
from vbss.gated import Gated
from vbss.hermitian import inverse_and_log_determinant, packed_identity
from vbss.kinds import Simplex, Variance
from vbss.models import cgmm_start, inverse_wishart_mixture_closed_forms
from vbss.models.cgmm import LDACGMM
from vbss.program import indicator, point, statistics


class InverseWishartMixture(LDACGMM):
    """x_ft | z_ft = k ~ N_C(0, lambda_ftk H_fk), where z_ft ~ Cat(pi_t), H_fk | w_k = d ~ IW_C(nu, (nu - M) G_fd),
    w_k ~ Cat(phi).

    Where `LDACGMM` has a covariance for each candidate direction, this has one for each class, which hears its source
    through the room as it is: the direction's template is the mean of its prior. That costs less, and a class may leave
    a direction that its covariance does not support.

    A class of noise may stand beside the sources: its covariance is the identity, that of no direction (after
    `vbss.audio.diffuse_whitening`, sound from everywhere alike), and is not inferred, as one that is follows the
    sources. It owns the bins that no source explains. The sources are the first `num_sources` classes of `source`, so
    that their probabilities do not add up to one there.

    How the covariances are inferred is the factorisation's choice. `vbss.EM()` keeps them at their mode. Given these,
    the indicators do not interact, and their posterior is exact: this is EM on the density with all indicators summed
    out, p(H_k) = sum_d phi_d prod_f IW_C(H_fk; nu, (nu - M) G_fd) among them, which the bound equals after the updates
    of `direction` and `source`, and which `vbss.MCMC` draws from. `vbss.EM(at_mode=())` infers a distribution of the
    covariances, independent of the indicators: variational EM, with derived updates.

    Attributes:
        templates, degrees_of_freedom, loading, num_sources: as of `LDACGMM`; G, nu, and K without the noise.
        has_noise: whether there is a class of noise, the last one.

    The program's arguments and points are those of `LDACGMM`, with C = `num_classes` for K: `power` (F, C, T) and
    `log_mixing_weights` (T, C). Sites: `source` (z; F, T plates, C states), `direction` (w; K plate),
    `spatial_covariance` (H; F, K plates), `mixture`.
    """

    has_noise: bool = eqx.field(static=True, default=False)

    # Covariances first: they follow from the start's masks, and one pass over the data serves them and the bound.
    schedule = ("spatial_covariance", "direction", "log_direction_weights", "log_mixing_weights", "power", "source")

    @classmethod
    def init(
        cls,
        steering_vectors: Complex[Array, "f d m"],
        num_sources: int,
        *,
        has_noise: bool = False,
        degrees_of_freedom: float | None = None,
        diffuseness: float = 1e-2,
        loading: float = 1e-3,
    ) -> "InverseWishartMixture":
        """A model for an array, from its steering vectors.

        Args:
            has_noise: whether there is a class of noise beside the sources.
            steering_vectors, num_sources, degrees_of_freedom, diffuseness, loading: as of `LDACGMM.init`.

        Raises:
            ValueError: as `LDACGMM.init`.
        """
        model = super().init(
            steering_vectors,
            num_sources,
            degrees_of_freedom=degrees_of_freedom,
            diffuseness=diffuseness,
            loading=loading,
        )
        assert isinstance(model, cls)
        return dataclasses.replace(model, has_noise=has_noise)

    @property
    def num_classes(self) -> int:
        """C: the sources, and the noise if there is any."""
        return self.num_sources + self.has_noise

    def candidates(self) -> tuple[Float[Array, "f d p"], Float[Array, "f d"]]:
        """Psi = (nu - M) G of every direction, packed, and log|Psi|."""
        scales = (self.degrees_of_freedom - self._size) * self.templates
        return scales, inverse_and_log_determinant(scales)[1]

    def prior(self, direction: Float[Array, "k d"]) -> ComplexInverseWishart:
        """p(H | w), batch shape (F, K), of which the log density is affine in w: one-hot, or its probabilities."""
        scales, log_determinants = self.candidates()
        # At every frequency: products one frequency at a time need no transposed copy.
        chosen = jnp.broadcast_to(direction[None], (scales.shape[0], *direction.shape))
        scale = jnp.einsum("fkd,fdp->fkp", chosen, scales, precision="highest")
        log_determinant = jnp.einsum("kd,fd->fk", direction, log_determinants, precision="highest")
        return _GatedInverseWishart(self.degrees_of_freedom, scale, log_determinant)

    def of_classes(self, covariance: dict[str, Array]) -> dict[str, Array]:
        """The statistics of the sources' covariances, H^-1 (F, K, M*M) and log|H| (F, K), and those of the noise."""
        if not self.has_noise:
            return covariance
        precision, log_determinant = covariance["precision"], covariance["log_determinant"]
        identity = packed_identity(self._size, precision.dtype).reshape(1, 1, -1)
        identity = jnp.broadcast_to(identity, precision[:, :1].shape)
        return {
            "precision": jnp.concatenate([precision, identity], 1),
            "log_determinant": jnp.pad(log_determinant, ((0, 0), (0, 1))),
        }

    @property
    def _size(self) -> int:
        return isqrt(self.templates.shape[-1])

    def __call__(self, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None) -> None:
        num_frequencies, num_directions, _ = self.templates.shape
        num_frames, dtype = mixture.shape[1], self.templates.dtype

        uniform_directions = jnp.full(num_directions, -jnp.log(num_directions), dtype)
        uniform_classes = jnp.full((num_frames, self.num_classes), -jnp.log(self.num_classes), dtype)
        log_direction_weights = point("log_direction_weights", uniform_directions, Simplex())
        log_mixing_weights = point("log_mixing_weights", uniform_classes, Simplex())
        ones = jnp.ones((num_frequencies, self.num_classes, num_frames), dtype)
        power = point("power", ones, Variance(), given="source")
        frequencies = numpyro.plate("frequencies", num_frequencies, dim=-2)

        sources = numpyro.plate("sources", self.num_sources, dim=-1)

        with sources:
            direction = indicator("direction", log_direction_weights)
        with frequencies, sources:
            covariance = self.of_classes(statistics("spatial_covariance", self.prior(direction)))
        with frequencies, numpyro.plate("frames", num_frames, dim=-1):
            source = indicator("source", log_mixing_weights, axis=-2)
            density = ComplexNormal(
                precision=("fkp", covariance["precision"]),
                log_determinant=("fk", covariance["log_determinant"]),
                power=("fkt", power),
                loading=("f", self.loading),
            )
            gated = Gated("ft", {"fkt": source}, density)
            if is_observed is not None:  # what they hold must not reach a product, not even one with zero
                gated, mixture = gated.mask(is_observed), jnp.where(is_observed[..., None], mixture, 0)
            numpyro.sample("mixture", gated, obs=mixture)

    def start(
        self, key: Array, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
    ) -> Mapping[str, Array]:
        """The peaks of the directions' histogram (`vbss.models.cgmm_start.peak_directions`)."""
        return self.given_directions(mixture, cgmm_start.peak_directions(self, mixture, is_observed), is_observed)

    def given_directions(
        self,
        mixture: Complex[Array, "f t m"],
        direction: Float[Array, "k d"],
        is_observed: Bool[Array, "f t"] | None = None,
    ) -> dict[str, Array]:
        """A start from direction probabilities, as `cgmm_start.given_directions`, but with the noise.

        The noise starts with the same share of every bin: templates without the room's reverberation explain too
        little for what they leave to be noise.
        """
        start = super().given_directions(mixture, direction, is_observed)
        if not self.has_noise:
            return start
        masks, power = start["source"], start["power"]
        share = jnp.ones_like(masks[..., :1])
        of_noise = (mixture.real**2 + mixture.imag**2).mean(-1)[:, None].astype(power.dtype)
        return {
            "direction": direction,
            "source": jnp.concatenate([self.num_sources * masks, share], -1) / self.num_classes,
            "power": jnp.concatenate([power, jnp.where(of_noise > 0, of_noise, 1)], 1),
        }

    def closed_forms(self) -> Mapping[str, Callable]:
        return inverse_wishart_mixture_closed_forms.CLOSED_FORMS


class _GatedInverseWishart(ComplexInverseWishart):
    """IW_C(nu, Psi) with Psi and log|Psi| selected by a one-hot vector, each on its own.

    The log density is affine in both, and so in the one-hot vector: that of a mixed Psi would not be.

    Args:
        log_determinant: log|Psi|, of the batch's shape.
    """

    pytree_data_fields = ("log_determinant",)

    def __init__(self, degrees_of_freedom, packed_scale, log_determinant, *, validate_args=None):
        self.log_determinant = log_determinant
        super().__init__(degrees_of_freedom, packed_scale, validate_args=validate_args)

    def expected_log_prob(self, statistics):
        size, nu = self.event_shape[-1], self.degrees_of_freedom
        normaliser = nu * self.log_determinant - log_complex_multigamma(nu, size)
        trace = (self.packed_scale * statistics["precision"]).sum(-1)
        return normaliser - (nu + size) * statistics["log_determinant"] - trace
