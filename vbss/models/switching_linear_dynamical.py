"""The switching linear dynamical system: states whose dynamics follow a hidden Markov chain; variational EM.

Source: Ghahramani and Hinton, "Variational learning for switching state-space models", 2000, whose structured posterior
(a chain of switches, independent of a chain of states) it uses; here one chain of states changes its dynamics, where
theirs has several chains and switches between their observations.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from vbss.distributions import GaussMarkovChain
from vbss.errors import whole_number
from vbss.kinds import Linear, Precision, Simplex
from vbss.models.linear_observations import checked, column_moments, observe
from vbss.program import Model, markov_chain

_MEMORY = 0.9  # how much of a state is left after one step, at the start
_STAY = 0.9  # how probably a switch stays as it is, at the start
_SHORTEST = 3  # a chain of switches needs two steps


class SwitchingLinearDynamicalSystem(Model):
    """s_1 ~ Cat(pi), s_{t+1} | s_t ~ Cat(A[s_t]), x_1 ~ N(m, P^-1), x_{t+1} | x_t, s_t = k ~ N(F_k x_t + b_k, Q_k^-1),
    y_t | x_t ~ N(C x_t + d, diag(1 / r)).

    Switches and states are independent in the posterior, each a chain of its own.

    Attributes:
        log_initial_switch: log pi, shape (K,).
        log_switch: log A, shape (K, K), rows the state that is left.
        initial_loc: m, shape (L,).
        initial_precision: P, shape (L, L); not learnt, because one recording has one first state.
        transition: F, shape (K, L, L).
        drift: b, shape (K, L).
        precision: Q, of the states' noise, shape (K, L, L).
        loading: C, shape (D, L).
        offset: d, shape (D,).
        observation_precision: r, of the observations' noise, shape (D,).

    The program takes `observations` (T, D), T >= 3, and optionally `is_observed`, boolean (T,) or (T, D): what was not
    observed is integrated out, whatever finite values stand in its place. Sites: `switch` (of the T - 1 steps), `state`
    (event (T, L)), `observations`.
    """

    log_initial_switch: Annotated[Float[Array, " k"], Simplex()]
    log_switch: Annotated[Float[Array, "k k"], Simplex()]
    initial_loc: Annotated[Float[Array, " l"], Linear(event_rank=1)]
    initial_precision: Float[Array, "l l"]
    transition: Annotated[Float[Array, "k l l"], Linear(event_rank=2)]
    drift: Annotated[Float[Array, "k l"], Linear(event_rank=1)]
    precision: Annotated[Float[Array, "k l l"], Precision(event_rank=2)]
    loading: Annotated[Float[Array, "d l"], Linear(event_rank=1)]
    offset: Annotated[Float[Array, " d"], Linear()]
    observation_precision: Annotated[Float[Array, " d"], Precision()]

    # States first: switches say something only of paths that follow the observations.
    schedule = (
        "state",
        "switch",
        "log_initial_switch",
        "log_switch",
        "initial_loc",
        "transition",
        "drift",
        "precision",
        "loading",
        "offset",
        "observation_precision",
    )

    @classmethod
    def init(
        cls,
        observations: ArrayLike,
        num_latents: int,
        num_switches: int,
        *,
        key: Array,
        is_observed: ArrayLike | None = None,
    ) -> "SwitchingLinearDynamicalSystem":
        """Slowly fading states of unit variance, loaded at random so that they explain half of the data's variance.

        Under each switch the states turn about the origin at random a little, so that switches differ.

        Args:
            num_latents: L, the size of a state, at least 1.
            num_switches: K, at least 1.

        Raises:
            ValueError: if `observations` is not (T, D) of finite real numbers with T >= 3, a column is constant or not
                observed at all, or `is_observed` is not boolean of shape (T,) or (T, D).
        """
        observations, is_observed = checked(observations, is_observed, shortest=_SHORTEST)
        num_latents = whole_number("num_latents", num_latents, 1)
        num_switches = whole_number("num_switches", num_switches, 1)
        loc, variance = column_moments(observations, is_observed)
        dtype = observations.dtype
        key_loading, key_turn = jax.random.split(key)
        loading = jax.random.normal(key_loading, (len(loc), num_latents), dtype)
        turn = jax.random.normal(key_turn, (num_switches, num_latents, num_latents), dtype) / 4
        rotation = jax.scipy.linalg.expm(turn - jnp.swapaxes(turn, -1, -2))
        identity = jnp.eye(num_latents, dtype=dtype)
        stay = jnp.full((num_switches, num_switches), (1 - _STAY) / num_switches, dtype)
        return cls(
            log_initial_switch=jnp.full(num_switches, -jnp.log(num_switches), dtype),
            log_switch=jnp.log(stay + _STAY * jnp.eye(num_switches, dtype=dtype)),
            initial_loc=jnp.zeros(num_latents, dtype),
            initial_precision=identity,
            transition=_MEMORY * rotation,
            drift=jnp.zeros((num_switches, num_latents), dtype),
            precision=jnp.broadcast_to(identity / (1 - _MEMORY**2), (num_switches, num_latents, num_latents)),
            loading=loading * jnp.sqrt(variance / (2 * num_latents))[:, None],
            offset=loc,
            observation_precision=2 / variance,
        )

    def __call__(
        self,
        observations: Float[Array, "t d"],
        is_observed: Bool[Array, " t"] | Bool[Array, "t d"] | None = None,
    ) -> None:
        length = observations.shape[0]
        switch = markov_chain("switch", self.log_initial_switch, self.log_switch, length - 1)
        chain = GaussMarkovChain(
            self.initial_loc,
            self.initial_precision,
            self.transition,
            self.precision,
            length,
            offset=self.drift,
            gate=switch,
        )
        state = jnp.asarray(numpyro.sample("state", chain))
        observe(state, self.loading, self.offset, self.observation_precision, observations, is_observed)

    def validate(self, observations: Array, is_observed: Array | None = None) -> None:
        checked(observations, is_observed, self.loading.shape[0], _SHORTEST)
