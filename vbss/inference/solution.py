"""What `fit` returns."""

from enum import Enum

import equinox as eqx
import numpy as np
from jaxtyping import Float

from vbss.posterior import Posterior
from vbss.program import Model


class Status(Enum):
    """How an inference ended."""

    running = 0
    converged = 1
    max_steps = 2
    bound_decreased = 3
    nonfinite = 4
    interrupted = 5

    @property
    def explanation(self) -> str:
        return _EXPLANATIONS[self]


_EXPLANATIONS = {
    Status.running: "The iteration has not ended.",
    Status.converged: "The bound changed by less than the tolerance.",
    Status.max_steps: "Stopped at max_steps before the bound changed by less than the tolerance.",
    Status.bound_decreased: (
        "The bound fell by more than rounding: float32 is not enough, an update is wrong, or the program is outside "
        "the rules of derived inference (run vbss.check_derivation)."
    ),
    Status.nonfinite: (
        "The bound became infinite or nan: the data are degenerate (constant, repeated, without noise), or the program "
        "is outside the rules of derived inference (run vbss.check_derivation)."
    ),
    Status.interrupted: "Interrupted by the user; continue with start=solution.",
}


class Solution(eqx.Module):
    """The end of an inference.

    Attributes:
        model: the model with its learnt parameters, of the type that went in.
        posterior: q over this recording's latents; `posterior["site"]` is a NumPyro distribution.
        elbo: the bound at the start and after every step, shape (num_steps + 1,), in nats.
        status: how the inference ended.
        num_steps: iterations done.
    """

    model: Model
    posterior: Posterior
    elbo: Float[np.ndarray, " steps"]
    status: Status = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
