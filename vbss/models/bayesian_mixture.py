"""The Bayesian Gaussian mixture: Dirichlet weights and a normal-Wishart prior on each component; variational EM."""

import equinox as eqx
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vbss.densities import MultivariateNormal
from vbss.errors import InputError
from vbss.gated import Gated
from vbss.models.gmm import check_observations
from vbss.program import Model, indicator


class BayesianGaussianMixture(Model):
    """mixing_weights ~ Dir(alpha), P_k ~ W(nu, S^-1), loc_k ~ N(m, (kappa P_k)^-1), y_n | z_n = k ~ N(loc_k, P_k^-1).

    Components that the data do not need lose their weight. Nothing is learnt but the posterior. Source: Bishop,
    "Pattern Recognition and Machine Learning" (2006), section 10.2.

    Attributes:
        concentration: alpha > 0, shape ().
        loc_prior: m, shape (D,).
        loc_weight: kappa > 0, the weight of m in observations, shape ().
        degrees_of_freedom: nu > D - 1, shape ().
        scatter: S, the prior's scatter matrix, shape (D, D).
        anchor: a point amid the data, shape (D,), about which statistics are taken: float32 needs it.
        num_components: K.

    The program takes `observations` (N, D). Sites: `mixing_weights`, `precision` and `loc` (K plates), `component` (N
    plates), `observations`.
    """

    concentration: Float[Array, ""]
    loc_prior: Float[Array, " d"]
    loc_weight: Float[Array, ""]
    degrees_of_freedom: Float[Array, ""]
    scatter: Float[Array, "d d"]
    anchor: Float[Array, " d"]
    num_components: int = eqx.field(static=True)

    # The parameters first: they follow from the start's responsibilities.
    schedule = ("mixing_weights", "precision", "loc", "component")

    @classmethod
    def init(
        cls,
        observations: ArrayLike,
        num_components: int,
        *,
        concentration: float | None = None,
        loc_weight: float = 1.0,
        degrees_of_freedom: float | None = None,
    ) -> "BayesianGaussianMixture":
        """Priors about the data's mean and covariance.

        Args:
            concentration: by default 1 / K, which empties components that are not needed.
            degrees_of_freedom: by default D.

        Raises:
            ValueError: if `observations` is not (N, D) with N > D, not finite, or a hyper-parameter is out of range.
        """
        observations = jnp.asarray(observations)
        check_observations(observations)
        num_observations, size = observations.shape
        if not 1 <= num_components <= num_observations:
            raise InputError(
                f"num_components must be between 1 and the {num_observations} observations, got {num_components}"
            )
        concentration = 1 / num_components if concentration is None else concentration
        degrees_of_freedom = float(size) if degrees_of_freedom is None else degrees_of_freedom
        for name, value, above in (
            ("concentration", concentration, 0),
            ("loc_weight", loc_weight, 0),
            ("degrees_of_freedom", degrees_of_freedom, size - 1),
        ):
            if not value > above:
                raise InputError(f"{name} must be above {above}, got {value}")
        mean = observations.mean(0)
        centred = observations - mean[None]
        dtype = observations.dtype
        return cls(
            concentration=jnp.asarray(concentration, dtype),
            loc_prior=mean,
            loc_weight=jnp.asarray(loc_weight, dtype),
            degrees_of_freedom=jnp.asarray(degrees_of_freedom, dtype),
            scatter=centred.T @ centred / (num_observations - 1),
            anchor=mean,
            num_components=num_components,
        )

    def __call__(self, observations: Float[Array, "n d"]) -> None:
        concentration = jnp.broadcast_to(self.concentration, (self.num_components,))
        weights = numpyro.sample("mixing_weights", dist.Dirichlet(concentration))
        with numpyro.plate("k", self.num_components):
            precision = numpyro.sample("precision", dist.Wishart(self.degrees_of_freedom, rate_matrix=self.scatter))
            loc = numpyro.sample(
                "loc", dist.MultivariateNormal(self.loc_prior, precision_matrix=self.loc_weight * precision)
            )
        with numpyro.plate("n", observations.shape[0]):
            component = indicator("component", jnp.log(weights))
            density = MultivariateNormal(("ki", loc), ("kij", precision), anchor=self.anchor)
            numpyro.sample("observations", Gated("n", {"nk": component}, density), obs=observations)

    def validate(self, observations: Array) -> None:
        check_observations(observations, self.loc_prior.shape[-1])
