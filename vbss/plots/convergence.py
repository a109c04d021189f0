"""The trace of an inference."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.lines


def plot_elbo(ax: "matplotlib.axes.Axes", elbo: Float[np.ndarray, " steps"]) -> "matplotlib.lines.Line2D":
    """Draw the evidence lower bound at the start and after every step, as in `vbss.Solution.elbo`.

    Args:
        ax: where to draw.
        elbo: nats.

    Returns:
        The line.
    """
    from matplotlib.ticker import MaxNLocator

    (line,) = ax.plot(np.arange(len(elbo)), elbo, color="black", marker=".")
    ax.set(xlabel="step", ylabel="ELBO (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    return line
