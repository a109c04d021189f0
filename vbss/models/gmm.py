"""The Gaussian mixture model with full covariances; exact EM."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vbss.densities import MultivariateNormal
from vbss.errors import InputError
from vbss.gated import Gated
from vbss.kinds import Linear, Precision, Simplex
from vbss.program import Model, indicator


class GaussianMixture(Model):
    """z_n ~ Cat(mixing_weights), y_n | z_n = k ~ N(loc_k, precision_k^-1).

    Attributes:
        log_weights: log mixing weights (log pi), shape (K,).
        loc: component means (mu), shape (K, D).
        precision: component precisions (Sigma^-1), shape (K, D, D).
        anchor: a point amid the data, shape (D,), about which statistics are taken: float32 needs it.

    The program takes `observations` (N, D). Sites: `component` (N plates), `observations`.
    """

    log_weights: Annotated[Float[Array, " k"], Simplex()]
    loc: Annotated[Float[Array, "k d"], Linear(event_rank=1)]
    precision: Annotated[Float[Array, "k d d"], Precision(event_rank=2)]
    anchor: Float[Array, " d"]

    @classmethod
    def init(cls, observations: ArrayLike, num_components: int, *, key: Array) -> "GaussianMixture":
        """Equal weights, means drawn from the data far from each other (k-means++), the data's covariance for each.

        Raises:
            ValueError: if `observations` is not (N, D) with N > D, not finite, or `num_components` is not in 1..N.
        """
        observations = jnp.asarray(observations)
        check_observations(observations)
        num_observations, size = observations.shape
        if not 1 <= num_components <= num_observations:
            raise InputError(
                f"num_components must be between 1 and the {num_observations} observations, got {num_components}"
            )
        loc = _spread(observations, num_components, key)
        centred = observations - observations.mean(0, keepdims=True)
        covariance = centred.T @ centred / num_observations
        factor = jnp.linalg.cholesky(covariance)
        if not bool(jnp.isfinite(factor).all()):
            raise InputError("observations must span all their dimensions: their covariance is singular")
        shared = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(size, dtype=observations.dtype))
        return cls(
            log_weights=jnp.full(num_components, -jnp.log(num_components), observations.dtype),
            loc=loc,
            precision=jnp.broadcast_to(shared, (num_components, size, size)),
            anchor=observations.mean(0),
        )

    def __call__(self, observations: Float[Array, "n d"]) -> None:
        with numpyro.plate("n", observations.shape[0]):
            component = indicator("component", self.log_weights)
            density = MultivariateNormal(("ki", self.loc), ("kij", self.precision), anchor=self.anchor)
            numpyro.sample("observations", Gated("n", {"nk": component}, density), obs=observations)

    def validate(self, observations: Array) -> None:
        check_observations(observations, self.loc.shape[-1])


def check_observations(observations: Array, size: int | None = None) -> None:
    """Raise InputError where these are not finite observations (N, D) with N > D, of the given D."""
    if observations.ndim != 2 or observations.shape[0] <= observations.shape[1]:
        raise InputError(f"observations must have shape (N, D) with N > D, got {observations.shape}")
    if not jnp.issubdtype(observations.dtype, jnp.floating):
        raise InputError(f"observations must be real floating numbers, got {observations.dtype}")
    if not bool(jnp.isfinite(observations).all()):
        raise InputError("observations must be finite")
    if size is not None and observations.shape[-1] != size:
        raise InputError(f"observations must have {size} columns as the model, got shape {observations.shape}")


def _spread(observations: Array, num_components: int, key: Array) -> Array:
    """k-means++ seeds: each next mean is an observation, drawn in proportion to its squared distance to the nearest."""
    keys = jax.random.split(key, num_components)
    first = observations[jax.random.randint(keys[0], (), 0, observations.shape[0])]

    def draw(distance, key):
        index = jax.random.categorical(key, jnp.log(distance))
        chosen = observations[index]
        squared = ((observations - chosen[None]) ** 2).sum(-1)
        return jnp.minimum(distance, squared), chosen

    _, rest = jax.lax.scan(draw, ((observations - first[None]) ** 2).sum(-1), keys[1:])
    return jnp.concatenate([first[None], rest])
