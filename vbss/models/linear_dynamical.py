"""The linear dynamical system (state-space model, Kalman smoother) with learnt parameters; exact EM.

Source: Ghahramani and Hinton, "Parameter estimation for linear dynamical systems", 1996.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from vbss.distributions import GaussMarkovChain
from vbss.errors import whole_number
from vbss.kinds import Linear, Precision
from vbss.models.linear_observations import checked, column_moments, observe
from vbss.program import Model

_MEMORY = 0.9  # how much of a state is left after one step, at the start


class LinearDynamicalSystem(Model):
    """x_1 ~ N(m, P^-1), x_{t+1} | x_t ~ N(F x_t, Q^-1), y_t | x_t ~ N(C x_t + d, diag(1 / r)).

    The posterior of the states is exact, so the bound after their update is the log likelihood.

    Attributes:
        initial_loc: m, shape (L,).
        initial_precision: P, shape (L, L); not learnt, because one recording has one first state.
        transition: F, shape (L, L).
        precision: Q, of the states' noise, shape (L, L).
        loading: C, shape (D, L).
        offset: d, shape (D,).
        observation_precision: r, of the observations' noise, shape (D,).

    The program takes `observations` (T, D), T >= 2, and optionally `is_observed`, boolean (T,) or (T, D): what was not
    observed is integrated out, whatever finite values stand in its place. Sites: `state` (event (T, L)),
    `observations`.
    """

    initial_loc: Annotated[Float[Array, " l"], Linear(event_rank=1)]
    initial_precision: Float[Array, "l l"]
    transition: Annotated[Float[Array, "l l"], Linear(event_rank=2)]
    precision: Annotated[Float[Array, "l l"], Precision(event_rank=2)]
    loading: Annotated[Float[Array, "d l"], Linear(event_rank=1)]
    offset: Annotated[Float[Array, " d"], Linear()]
    observation_precision: Annotated[Float[Array, " d"], Precision()]

    @classmethod
    def init(
        cls, observations: ArrayLike, num_latents: int, *, key: Array, is_observed: ArrayLike | None = None
    ) -> "LinearDynamicalSystem":
        """Slowly fading states of unit variance, loaded at random so that they explain half of the data's variance.

        Args:
            num_latents: L, the size of a state, at least 1.

        Raises:
            ValueError: if `observations` is not (T, D) of finite real numbers with T >= 2, a column is constant or not
                observed at all, or `is_observed` is not boolean of shape (T,) or (T, D).
        """
        observations, is_observed = checked(observations, is_observed)
        num_latents = whole_number("num_latents", num_latents, 1)
        loc, variance = column_moments(observations, is_observed)
        identity = jnp.eye(num_latents, dtype=observations.dtype)
        loading = jax.random.normal(key, (len(loc), num_latents), observations.dtype)
        return cls(
            initial_loc=jnp.zeros(num_latents, observations.dtype),
            initial_precision=identity,
            transition=_MEMORY * identity,
            precision=identity / (1 - _MEMORY**2),
            loading=loading * jnp.sqrt(variance / (2 * num_latents))[:, None],
            offset=loc,
            observation_precision=2 / variance,
        )

    def __call__(
        self,
        observations: Float[Array, "t d"],
        is_observed: Bool[Array, " t"] | Bool[Array, "t d"] | None = None,
    ) -> None:
        chain = GaussMarkovChain(
            self.initial_loc, self.initial_precision, self.transition, self.precision, observations.shape[0]
        )
        state = jnp.asarray(numpyro.sample("state", chain))
        observe(state, self.loading, self.offset, self.observation_precision, observations, is_observed)

    def validate(self, observations: Array, is_observed: Array | None = None) -> None:
        checked(observations, is_observed, self.loading.shape[0])
