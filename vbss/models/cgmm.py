"""The LDA-style complex Gaussian mixture: separation masks and directions of arrival of an array recording, jointly.

Source: "Neural source separation in a deep Bayesian framework with a complex Gaussian mixture" (the papers' numbers
stand beside the names; H, lambda, pi, phi, z, w are theirs).
"""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jaxtyping import Array, Bool, Complex, Float

from vbss.densities import ComplexNormal
from vbss.distributions import ComplexInverseWishart
from vbss.errors import InputError
from vbss.gated import Gated
from vbss.hermitian import pack_outer, packed_identity
from vbss.kinds import Simplex, Variance
from vbss.models import cgmm_closed_forms, cgmm_start
from vbss.models.bins import check_bins
from vbss.models.noise_class import gates, of_classes, with_noise
from vbss.program import Model, indicator, point, statistics


class LDACGMM(Model):
    """x_ft | z_ft = k, w_k = d ~ N_C(0, lambda_ftk H_fd), where z_ft ~ Cat(pi_t), w_k ~ Cat(phi), H_fd ~ IW_C(nu, Psi).

    Psi_fd = (nu - M) G_fd, so that the templates G are the prior means.

    All that is fitted belongs to one recording and lives in the posterior, so one model serves every recording of an
    array.

    Attributes:
        templates: G_fd, the prior means of the spatial covariances, packed (`vbss.hermitian.pack`), (F, D, M*M).
        degrees_of_freedom: nu > M, the prior's weight in frames.
        loading: relative white noise that every bin is taken to carry, shape (F,); see `vbss.ComplexNormal`.
        num_sources: K.
        has_noise: whether there is a class of noise beside the sources, the last one (`vbss.models.noise_class`).

    The program takes `mixture`, complex (F, T, M), and optionally `is_observed`, boolean (F, T): bins that were not
    observed (pauses, clipped or lost sound) are integrated out, whatever finite values they hold. Sites: `source` (z;
    F, T plates, C states: the sources, and the noise if there is any), `direction` (w; K plate), `spatial_covariance`
    (H, kept at its MAP; F, D plates), `mixture`. Points: `power` (lambda, (F, C, T)), `log_mixing_weights` (log pi,
    (T, C)), `log_direction_weights` (log phi, (D,)).
    """

    templates: Float[Array, "f d p"]
    degrees_of_freedom: Float[Array, ""]
    loading: Float[Array, " f"]
    num_sources: int = eqx.field(static=True)
    has_noise: bool = eqx.field(static=True, default=False)

    # Directions first: they follow from the start's masks. Then one pass over the data serves `direction`,
    # `spatial_covariance` and the bound, and one `power` and `source`.
    at_mode = ("spatial_covariance",)
    schedule = ("direction", "log_direction_weights", "log_mixing_weights", "spatial_covariance", "power", "source")

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
    ) -> "LDACGMM":
        """A model for an array, from its steering vectors.

        Args:
            steering_vectors: b_fd, one for each frequency and candidate direction, complex (F, D, M).
            num_sources: K, at least 1 and at most D.
            has_noise: whether there is a class of noise beside the sources.
            degrees_of_freedom: nu; M + 5 by default (section 4.2).
            diffuseness: epsilon of G = b b^H + epsilon I (equation 6).
            loading: relative white noise that every bin is taken to carry. In float32, 1e-3 is safe for any recording
                and 1e-4 for one whitened by `vbss.audio.diffuse_whitening`, which wants some in float64 too.

        Raises:
            ValueError: for wrong shapes, fewer than 2 microphones, or num_sources outside 1..D.
        """
        if steering_vectors.ndim != 3 or steering_vectors.shape[-1] < 2:
            raise InputError(
                "steering_vectors must have shape (frequencies, directions, microphones) with at least 2 microphones, "
                f"got {steering_vectors.shape}"
            )
        num_frequencies, num_directions, size = steering_vectors.shape
        if not 1 <= num_sources <= num_directions:
            raise InputError(f"num_sources must be between 1 and the {num_directions} directions, got {num_sources}")
        nu = size + 5.0 if degrees_of_freedom is None else degrees_of_freedom
        if not size < nu < jnp.inf:
            raise InputError(f"degrees_of_freedom must exceed the number of microphones {size}, got {nu}")
        if not (0 < diffuseness < jnp.inf and 0 <= loading < jnp.inf):
            raise InputError(f"diffuseness must be positive and loading not negative, got {diffuseness} and {loading}")
        packed = pack_outer(steering_vectors)
        identity = packed_identity(size, packed.dtype).reshape(1, 1, -1)
        return cls(
            templates=packed + diffuseness * identity,
            degrees_of_freedom=jnp.asarray(nu, packed.dtype),
            loading=jnp.full(num_frequencies, loading, packed.dtype),
            num_sources=num_sources,
            has_noise=has_noise,
        )

    @property
    def num_classes(self) -> int:
        """C: the sources, and the noise if there is any."""
        return self.num_sources + self.has_noise

    def __call__(self, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None) -> None:
        num_frequencies, num_directions, _ = self.templates.shape
        num_frames, size = mixture.shape[1:]
        nu, dtype = self.degrees_of_freedom, self.templates.dtype

        uniform_directions = jnp.full(num_directions, -jnp.log(num_directions), dtype)
        uniform_classes = jnp.full((num_frames, self.num_classes), -jnp.log(self.num_classes), dtype)
        log_direction_weights = point("log_direction_weights", uniform_directions, Simplex())
        log_mixing_weights = point("log_mixing_weights", uniform_classes, Simplex())
        ones = jnp.ones((num_frequencies, self.num_classes, num_frames), dtype)
        power = point("power", ones, Variance(), given="source")
        frequencies = numpyro.plate("frequencies", num_frequencies, dim=-2)

        with frequencies, numpyro.plate("directions", num_directions, dim=-1):
            covariance = statistics("spatial_covariance", ComplexInverseWishart(nu, (nu - size) * self.templates))
        with numpyro.plate("sources", self.num_sources):
            direction = indicator("direction", log_direction_weights)
        with frequencies, numpyro.plate("frames", num_frames, dim=-1):
            source = indicator("source", log_mixing_weights, axis=-2)
            covariance = of_classes(self, covariance)
            density = ComplexNormal(
                precision=("fdp", covariance["precision"]),
                log_determinant=("fd", covariance["log_determinant"]),
                power=("fkt", power),
                loading=("f", self.loading),
            )
            gated = Gated("ft", {"fkt": source, "kd": gates(self, direction)}, density)
            if is_observed is not None:  # what they hold must not reach a product, not even one with zero
                gated, mixture = gated.mask(is_observed), jnp.where(is_observed[..., None], mixture, 0)
            numpyro.sample("mixture", gated, obs=mixture)

    def start(
        self, key: Array, mixture: Complex[Array, "f t m"], is_observed: Bool[Array, "f t"] | None = None
    ) -> Mapping[str, Array]:
        """The peaks of the directions' histogram under fixed templates (`vbss.models.cgmm_start.peak_directions`)."""
        return self.given_directions(mixture, cgmm_start.peak_directions(self, mixture, is_observed), is_observed)

    def given_directions(
        self,
        mixture: Complex[Array, "f t m"],
        direction: Float[Array, "k d"],
        is_observed: Bool[Array, "f t"] | None = None,
    ) -> dict[str, Array]:
        """A start from direction probabilities (`vbss.models.cgmm_start.given_directions`)."""
        return with_noise(
            self, cgmm_start.given_directions(self, mixture, direction, is_observed), mixture, is_observed
        )

    def closed_forms(self) -> Mapping[str, Callable]:
        return cgmm_closed_forms.CLOSED_FORMS

    def validate(self, mixture: Array, is_observed: Array | None = None) -> None:
        num_frequencies, _, num_packed = self.templates.shape
        if mixture.ndim != 3 or mixture.shape[0] != num_frequencies or mixture.shape[2] ** 2 != num_packed:
            raise InputError(
                f"mixture must have shape (frequencies {num_frequencies}, frames, microphones "
                f"{round(num_packed**0.5)}), got {mixture.shape}"
            )
        check_bins(mixture, is_observed)
        templates_are_finite, is_heard = _look(self.templates, mixture, is_observed)
        if not bool(templates_are_finite):
            raise InputError("the model's templates must be finite: were its steering vectors?")
        if not bool(is_heard):
            raise InputError("mixture must not be silent")


@jax.jit
def _look(templates: Array, mixture: Array, is_observed: Array | None) -> tuple[Array, Array]:
    """Whether the templates are finite, and whether there is sound."""
    is_sound = jnp.any(mixture != 0, -1)
    return jnp.isfinite(templates).all(), jnp.any(is_sound if is_observed is None else is_sound & is_observed)
