"""The mixture of Student's t distributions, robust to outliers; exact EM through its gamma-distributed scales."""

from typing import Annotated

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from vbss.densities import MultivariateNormal
from vbss.gated import Gated
from vbss.kinds import Linear, Precision, Simplex
from vbss.models.gmm import GaussianMixture, check_observations
from vbss.numerical import Numerical
from vbss.program import Given, Model, indicator


class StudentMixture(Model):
    """z_n ~ Cat(pi), u_n | z_n = k ~ Gamma(nu_k / 2, nu_k / 2), y_n | z_n = k, u_n ~ N(loc_k, (u_n P_k)^-1).

    Source: Peel and McLachlan, "Robust mixture modelling using the t distribution" (2000).

    Attributes:
        log_weights: log mixing weights (log pi), shape (K,).
        loc: component locations (mu), shape (K, D).
        precision: component precisions (P, inverse scale matrices), shape (K, D, D).
        degrees_of_freedom: nu, shape (K,); no closed form exists, so each iteration takes a few numerical steps.
        anchor: a point amid the data, shape (D,), about which statistics are taken: float32 needs it.

    The program takes `observations` (N, D). Sites: `component` and `scale` (u; N plates), `observations`.
    """

    log_weights: Annotated[Float[Array, " k"], Simplex()]
    loc: Annotated[Float[Array, "k d"], Linear(event_rank=1)]
    precision: Annotated[Float[Array, "k d d"], Precision(event_rank=2)]
    degrees_of_freedom: Annotated[Float[Array, " k"], Numerical(constraints.positive)]
    anchor: Float[Array, " d"]

    @classmethod
    def init(cls, observations: ArrayLike, num_components: int, *, key: Array) -> "StudentMixture":
        """As `GaussianMixture.init`, with four degrees of freedom.

        Raises:
            ValueError: if `observations` is not (N, D) with N > D, not finite, or `num_components` is not in 1..N.
        """
        gaussian = GaussianMixture.init(observations, num_components, key=key)
        return cls(
            gaussian.log_weights,
            gaussian.loc,
            gaussian.precision,
            jnp.full(num_components, 4.0, gaussian.loc.dtype),
            gaussian.anchor,
        )

    def __call__(self, observations: Float[Array, "n d"]) -> None:
        half = self.degrees_of_freedom / 2
        with numpyro.plate("n", observations.shape[0]):
            component = indicator("component", self.log_weights)
            scale = numpyro.sample("scale", Given(component, dist.Gamma(half, half)))
            density = MultivariateNormal(
                ("ki", self.loc), ("kij", self.precision), weight=("nk", scale), anchor=self.anchor
            )
            numpyro.sample("observations", Gated("n", {"nk": component}, density), obs=observations)

    def validate(self, observations: Array) -> None:
        check_observations(observations, self.loc.shape[-1])
