"""What the models of dynamical systems share: noisy linear observations of a path of states, some of them missing."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from vbss.errors import InputError


def observe(
    state: Float[Array, "*batch t l"],
    loading: Float[Array, "d l"],
    offset: Float[Array, " d"],
    precision: Float[Array, " d"],
    observations: Float[Array, "t d"],
    is_observed: Bool[Array, " t"] | Bool[Array, "t d"] | None,
) -> None:
    """The program's site `observations`: each entry with its own noise, those not observed left out."""
    loc = jnp.einsum("...tl,dl->...td", state, loading, precision="highest") + offset[None]
    density = dist.Normal(loc, precision**-0.5)
    if is_observed is not None:  # what stands in their place must not reach a product, not even one with zero
        is_observed = is_observed if is_observed.ndim == 2 else is_observed[:, None]
        density, observations = density.mask(is_observed), jnp.where(is_observed, observations, 0)
    with numpyro.plate("times", observations.shape[0], dim=-2), numpyro.plate("channels", len(offset), dim=-1):
        numpyro.sample("observations", density, obs=observations)


def checked(
    observations: ArrayLike, is_observed: ArrayLike | None, num_channels: int | None = None, shortest: int = 2
) -> tuple[Array, Array | None]:
    """The observations and the mask as arrays.

    Raises:
        InputError: if they are not what the models of dynamical systems take.
    """
    observations = jnp.asarray(observations)
    if observations.ndim != 2 or observations.shape[0] < shortest or num_channels not in (None, observations.shape[1]):
        columns = "D" if num_channels is None else f"{num_channels}, the rows of the model's loading"
        raise InputError(
            f"observations must have shape (T, {columns}) with T >= {shortest}, got shape {observations.shape}"
        )
    if not jnp.issubdtype(observations.dtype, jnp.floating):
        raise InputError(f"observations must be real floating numbers, got {observations.dtype}")
    if not bool(jnp.isfinite(observations).all()):
        raise InputError("observations must be finite, also where is_observed leaves them out")
    if is_observed is None:
        return observations, None
    is_observed = jnp.asarray(is_observed)
    if is_observed.dtype != bool or is_observed.shape not in (observations.shape[:1], observations.shape):
        raise InputError(
            f"is_observed must be boolean of shape {observations.shape[:1]} or {observations.shape}, got "
            f"{is_observed.dtype} of shape {is_observed.shape}"
        )
    return observations, is_observed


def column_moments(observations: Array, is_observed: Array | None) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Mean and variance of what was observed of each column.

    Raises:
        InputError: if a column is constant, or not observed.
    """
    is_present = jnp.ones_like(observations, bool) if is_observed is None else is_observed
    is_present = is_present if is_present.ndim == 2 else is_present[:, None]
    weights = jnp.broadcast_to(is_present, observations.shape).astype(observations.dtype)
    count = jnp.maximum(weights.sum(0), 1)
    loc = (weights * observations).sum(0) / count
    variance = (weights * (observations - loc[None]) ** 2).sum(0) / count
    if not bool((variance > 0).all()):
        column = int(jnp.argmin(variance))
        raise InputError(f"observations must vary in every column, but column {column} is constant or not observed")
    return loc, variance
