"""Posteriors of directions, seen from above."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vbss.errors import InputError
from vbss.metrics.localisation import angular_error
from vbss.plots.colors import source_color

if TYPE_CHECKING:
    import matplotlib.axes

_RINGS = (0.001, 0.01, 0.1, 1.0)  # probabilities
_CENTRE = 1e-4  # the probability that, like all below it, is drawn at the centre


def plot_directions(
    ax: "matplotlib.axes.Axes",
    azimuths: Float[np.ndarray, " directions"],
    direction_posterior: Float[np.ndarray, "sources directions"],
) -> None:
    """Draw the posterior of each source's direction as seen from above, and mark the most probable one on the rim.

    0 degrees is to the right (+x), and angles grow counter-clockwise. The distance from the centre is the logarithm of
    the probability, from 0.0001 to 1, so that sharp posteriors remain visible beside broad ones. Each source has its
    colour, and its label for the axes' legend.

    Args:
        ax: polar axes, such as `figure.add_subplot(projection="polar")`.
        azimuths: rad, evenly spaced.
        direction_posterior: probabilities; each row adds up to 1.

    Raises:
        InputError: if the axes are not polar.
    """
    from matplotlib.projections.polar import PolarAxes

    if not isinstance(ax, PolarAxes):
        raise InputError(f"ax must be polar axes, got {ax.name} ones: make them with projection='polar'.")
    # Each direction owns an arc; a straight line between its ends would cut it.
    half = np.pi / len(azimuths)
    arcs = (azimuths[:, None] + np.linspace(-half, half, 5)).ravel()
    best = np.argmax(direction_posterior, axis=1)
    for source, (probabilities, direction) in enumerate(zip(direction_posterior, best, strict=True)):
        color = source_color(source)
        degrees = np.degrees(azimuths[direction]).round() % 360
        label = f"source {source + 1}: {degrees:.0f}° (p = {probabilities[direction]:.2f})"
        radii = np.repeat(_radius(probabilities), 5)
        ax.fill(arcs, radii, facecolor=color, edgecolor=color, alpha=0.5, label=label)
        ax.plot(azimuths[direction], 1, marker="o", color=color, markeredgecolor="white", clip_on=False)
    ax.set(ylim=(0, 1), xlabel="probability of a direction")
    ax.set_yticks(_radius(np.array(_RINGS)), [f"{ring:g}" for ring in _RINGS])
    ax.set_rlabel_position(np.degrees(_farthest_from(azimuths[best])))


def _radius(probabilities: Float[np.ndarray, " any"]) -> Float[np.ndarray, " any"]:
    # Rounding could make it negative, which a polar transform takes for missing.
    return np.clip(1 - np.log(np.maximum(probabilities, _CENTRE)) / np.log(_CENTRE), 0, 1)


def _farthest_from(azimuths: Float[np.ndarray, " sources"]) -> float:
    """The azimuth between two grid lines that is farthest from all of these, rad."""
    places = np.pi / 8 + np.pi / 4 * np.arange(8)
    return places[np.argmax(np.min(angular_error(places[:, None], azimuths[None]), axis=1))]
