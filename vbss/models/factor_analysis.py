"""Factor analysis and probabilistic principal component analysis; exact EM."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vbss.errors import InputError
from vbss.kinds import Linear, Precision
from vbss.models.gmm import check_observations
from vbss.program import Model


class FactorAnalysis(Model):
    """x_n ~ N(0, I), y_n | x_n ~ N(loading x_n + offset, diag(1 / r)).

    With one precision for all dimensions this is probabilistic PCA. Source: Ghahramani and Hinton, "The EM algorithm
    for mixtures of factor analyzers" (1996); Tipping and Bishop, "Probabilistic principal component analysis" (1999).

    Attributes:
        loading: W, shape (D, L).
        offset: mu, shape (D,).
        observation_precision: r, of the noise, shape (D,), or (1,) for probabilistic PCA.

    The program takes `observations` (N, D). Sites: `factors` (x; N plates, L), `observations` (N, D plates).
    """

    loading: Annotated[Float[Array, "d l"], Linear(event_rank=1)]
    offset: Annotated[Float[Array, " d"], Linear()]
    observation_precision: Annotated[Float[Array, " d_or_1"], Precision()]

    @classmethod
    def init(
        cls, observations: ArrayLike, num_factors: int, *, key: Array, isotropic: bool = False
    ) -> "FactorAnalysis":
        """Random loading of the data's scale.

        Args:
            isotropic: one noise precision for all dimensions: probabilistic PCA.

        Raises:
            ValueError: if `observations` is not (N, D) with N > D, not finite, constant in a dimension, or
                `num_factors` is not in 1..D-1.
        """
        observations = jnp.asarray(observations)
        check_observations(observations)
        size = observations.shape[1]
        if not 1 <= num_factors < size:
            raise InputError(f"num_factors must be between 1 and {size - 1} for {size} dimensions, got {num_factors}")
        variance = observations.var(0)
        if not bool((variance > 0).all()):
            raise InputError("observations must vary in every dimension")
        noise = jax.random.normal(key, (size, num_factors), observations.dtype)
        return cls(
            loading=noise * jnp.sqrt(variance / num_factors)[:, None],
            offset=observations.mean(0),
            observation_precision=2 / (variance.mean(keepdims=True) if isotropic else variance),
        )

    def __call__(self, observations: Float[Array, "n d"]) -> None:
        num_observations, size = observations.shape
        num_factors = self.loading.shape[1]
        origin = jnp.zeros(num_factors, self.loading.dtype)
        with numpyro.plate("n", num_observations):
            standard = dist.MultivariateNormal(origin, scale_tril=jnp.eye(num_factors, dtype=origin.dtype))
            factors = numpyro.sample("factors", standard)
        mean = jnp.einsum("dl,...nl->...nd", self.loading, factors) + self.offset
        with numpyro.plate("n", num_observations, dim=-2), numpyro.plate("d", size, dim=-1):
            numpyro.sample("observations", dist.Normal(mean, self.observation_precision**-0.5), obs=observations)

    def closed_forms(self) -> Mapping[str, Callable]:
        """The posterior precision is the same for all observations, which the derived update cannot know."""
        return {"factors": _factors}

    def validate(self, observations: Array) -> None:
        check_observations(observations, self.loading.shape[0])


def _factors(model: Any, posterior: Any, data: tuple, observations: Any) -> dict[str, Array]:
    """Ghahramani and Hinton (1996), equations (1) and (2), as natural parameters."""
    (y,) = data
    weighted = model.loading * jnp.broadcast_to(model.observation_precision, model.offset.shape)[:, None]
    num_factors = weighted.shape[1]
    precision = jnp.eye(num_factors, dtype=weighted.dtype) + model.loading.T @ weighted
    return {
        "linear": (y - model.offset[None]) @ weighted,
        "precision": jnp.broadcast_to(precision, (y.shape[0], num_factors, num_factors)),
    }
