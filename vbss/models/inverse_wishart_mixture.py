"""The inverse-Wishart mixture: one spatial covariance for each class, with the class's direction in its prior."""

from collections.abc import Callable, Mapping
from math import isqrt

import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.densities import ComplexNormal
from vbss.distributions import ComplexInverseWishart
from vbss.distributions.complex_wishart import log_complex_multigamma
from vbss.gated import Gated
from vbss.hermitian import inverse_and_log_determinant
from vbss.kinds import Simplex, Variance
from vbss.models import inverse_wishart_mixture_closed_forms
from vbss.models.cgmm import LDACGMM
from vbss.models.noise_class import of_classes
from vbss.program import indicator, point, statistics


class InverseWishartMixture(LDACGMM):
    """x_ft | z_ft = k ~ N_C(0, lambda_ftk H_fk), where z_ft ~ Cat(pi_t), H_fk | w_k = d ~ IW_C(nu, (nu - M) G_fd),
    w_k ~ Cat(phi).

    Where `LDACGMM` has a covariance for each candidate direction, this has one for each class, which hears its source
    through the room as it is: the direction's template is the mean of its prior. That costs less, and a class may leave
    a direction that its covariance does not support.

    How the covariances are inferred is the factorisation's choice. `vbss.EM()` keeps them at their mode. Given these,
    the indicators do not interact, and their posterior is exact: this is EM on the density with all indicators summed
    out, p(H_k) = sum_d phi_d prod_f IW_C(H_fk; nu, (nu - M) G_fd) among them, which the bound equals after the updates
    of `direction` and `source`, and which `vbss.MCMC` draws from. `vbss.EM(at_mode=())` infers a distribution of the
    covariances, independent of the indicators: variational EM, with derived updates.

    Attributes:
        templates, degrees_of_freedom, loading, num_sources, has_noise: as of `LDACGMM`.

    The program's arguments, points and sites are those of `LDACGMM`, but for `spatial_covariance` (H; F, K plates).
    """

    # Covariances first: they follow from the start's masks, and one pass over the data serves them and the bound.
    schedule = ("spatial_covariance", "direction", "log_direction_weights", "log_mixing_weights", "power", "source")

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
            covariance = of_classes(self, statistics("spatial_covariance", self.prior(direction)))
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
