"""The hidden Markov model with Gaussian emissions; exact EM (Baum-Welch)."""

from typing import Annotated

import jax.numpy as jnp
import numpyro
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from vbss.densities import MultivariateNormal
from vbss.gated import Gated
from vbss.kinds import Linear, Precision, Simplex
from vbss.models.gmm import GaussianMixture, check_observations
from vbss.program import Model, markov_chain


class HiddenMarkovModel(Model):
    """z_1 ~ Cat(pi), z_t+1 | z_t = i ~ Cat(A_i), y_t | z_t = k ~ N(loc_k, precision_k^-1).

    Source: Rabiner, "A tutorial on hidden Markov models and selected applications in speech recognition" (1989).

    Attributes:
        log_initial: log pi, log-probabilities of the first state, shape (K,).
        log_transition: log A, log-probabilities of the next state (columns) given this one (rows), shape (K, K).
        loc: emission means (mu), shape (K, D).
        precision: emission precisions (Sigma^-1), shape (K, D, D).
        anchor: a point amid the data, shape (D,), about which statistics are taken: float32 needs it.

    The program takes `observations` (T, D) and optionally `is_observed`, boolean (T,): times that were not observed are
    integrated out, whatever finite values they hold. Sites: `state` (a chain of T), `observations`.
    """

    log_initial: Annotated[Float[Array, " k"], Simplex()]
    log_transition: Annotated[Float[Array, "k k"], Simplex()]
    loc: Annotated[Float[Array, "k d"], Linear(event_rank=1)]
    precision: Annotated[Float[Array, "k d d"], Precision(event_rank=2)]
    anchor: Float[Array, " d"]

    @classmethod
    def init(
        cls, observations: ArrayLike, num_states: int, *, key: Array, stay_probability: float = 0.9
    ) -> "HiddenMarkovModel":
        """Emissions as `GaussianMixture.init`, states that stay with the given probability.

        Raises:
            ValueError: if `observations` is not (T, D) with T > D, not finite, or `num_states` is not in 1..T.
        """
        mixture = GaussianMixture.init(observations, num_states, key=key)
        dtype = mixture.loc.dtype
        leave = (1 - stay_probability) / max(num_states - 1, 1)
        transition = jnp.where(jnp.eye(num_states, dtype=bool), 1 - leave * (num_states - 1), leave)
        return cls(
            log_initial=mixture.log_weights,
            log_transition=jnp.log(transition).astype(dtype),
            loc=mixture.loc,
            precision=mixture.precision,
            anchor=mixture.anchor,
        )

    def __call__(self, observations: Float[Array, "t d"], is_observed: Bool[Array, " t"] | None = None) -> None:
        length = observations.shape[0]
        state = markov_chain("state", self.log_initial, self.log_transition, length)
        density = MultivariateNormal(("ki", self.loc), ("kij", self.precision), anchor=self.anchor)
        emission = Gated("t", {"tk": state}, density)
        with numpyro.plate("t", length):
            numpyro.sample(
                "observations", emission if is_observed is None else emission.mask(is_observed), obs=observations
            )

    def validate(self, observations: Array, is_observed: Array | None = None) -> None:
        check_observations(observations, self.loc.shape[-1])
