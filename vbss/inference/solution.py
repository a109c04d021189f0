"""What `fit` returns."""

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import equinox as eqx
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.posteriors import AbstractPosterior
from vbss.program import Model

if TYPE_CHECKING:
    import matplotlib.axes


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
    Status.converged: "The bound changed by less than the tolerance, or all draws were taken.",
    Status.max_steps: "Stopped at max_steps before it had converged.",
    Status.bound_decreased: (
        "The bound fell by more than rounding: float32 is not enough (centre and scale the data), an update is wrong, "
        "or the program is outside "
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
        elbo: the bound at the start and after every step, shape (num_steps + 1,), in nats. Of `MCMC` and, with
            continuous latents, `MonteCarloEM` it is the log density of the draws, which is no bound.
        status: how the inference ended.
        num_steps: iterations done.
        state: what the algorithm needs to go on as if it had not stopped.
    """

    model: Model
    posterior: AbstractPosterior
    elbo: Float[np.ndarray, " steps"]
    status: Status = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    state: Any = None

    def __repr__(self) -> str:
        try:
            bound = f"{self.elbo[-1]:.8g} nats" if len(self.elbo) else "none"
            lines = [
                f"Solution of {type(self.model).__name__}",
                f"  status: {self.status.name}. {self.status.explanation}",
                f"  steps: {self.num_steps}, last bound: {bound}",
                *(f"  {line}" for line in _described(self.posterior)),
            ]
        # Transformations of JAX and Equinox put other things in the place of arrays.
        except Exception:
            return super().__repr__()
        return "\n".join(lines)

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the bound at the start and after every step.

        Args:
            ax: where to draw; by default on a new figure, which is the axes' `figure`.

        Returns:
            The axes.
        """
        from matplotlib.figure import Figure

        from vbss.plots.convergence import plot_elbo

        ax = Figure(layout="constrained").add_subplot() if ax is None else ax
        plot_elbo(ax, self.elbo)
        return ax

    def to_arviz(
        self, *, key: Array | None = None, num_samples: int = 1000, data: Mapping[str, Any] | None = None
    ) -> Any:
        """The posterior's draws, the bound and the data for ArviZ; see `vbss.export.to_arviz`."""
        from vbss.export import to_arviz

        return to_arviz(self, key=key, num_samples=num_samples, data=data)


def _described(posterior: AbstractPosterior) -> list[str]:
    """A line for each site and its distribution, without computing anything."""
    lines = []

    def describe(posterior: AbstractPosterior) -> None:
        for name in sorted(posterior.names()):
            site = posterior[name]
            if isinstance(site, dist.Distribution):
                base = site
                while isinstance(base, dist.Independent | dist.ExpandedDistribution):
                    base = base.base_dist
                shapes = f"batch {site.batch_shape}, event {site.event_shape}"
                lines.append(f"{name}: {type(base).__name__}, {shapes}")
            else:
                lines.append(f"{name}: point, {site.shape}")

    eqx.filter_eval_shape(describe, posterior)
    return lines
