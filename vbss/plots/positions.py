"""Posteriors of positions around a head, and of delays between its ears."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.plots.colors import source_color

if TYPE_CHECKING:
    import matplotlib.axes

    from vbss.models.affine_pieces import PiecewisePosterior

_STEP = 1.0  # degrees
_MARGIN = 10.0  # degrees beyond what matters
_SHARE = 0.2  # of the map that the contours hold
_LEVELS = 8
_CHUNK = 4096  # points at a time: bounds the memory
_LIMITS = (180.0, 90.0)  # degrees, of azimuths and elevations; pieces that explain nothing may be anywhere


def plot_positions(ax: "matplotlib.axes.Axes", positions: "PiecewisePosterior") -> None:
    """Draw the log density of each source's position and mark its peak.

    Over azimuth and elevation, seen from the head: the left is on the left; contours grow denser towards the peak and
    hold a fifth of the map. Of positions without elevations, over the azimuth. Each source has its colour, and its
    label for the axes' legend.

    Args:
        ax: where to draw.
        positions: rad, azimuths counter-clockwise from the front.

    Raises:
        InputError: if positions have neither one nor two coordinates.
    """
    peaks = np.degrees(np.asarray(positions.peak))
    if peaks.shape[1] not in (1, 2):
        raise InputError(f"positions must be azimuths, or azimuths and elevations, got {peaks.shape[1]} coordinates.")
    means = np.degrees(np.asarray(positions.means))
    spans = [_span(means[..., axis], peaks[:, axis], _LIMITS[axis]) for axis in range(peaks.shape[1])]
    grid = np.stack(np.meshgrid(*spans, indexing="ij"), -1)
    points = np.radians(grid.reshape(-1, 1, peaks.shape[1])).astype(means.dtype)
    densities = np.asarray(_log_densities(positions, jnp.asarray(points)))
    for source, (peak, log_density) in enumerate(zip(peaks, densities.T, strict=True)):
        color, depth = source_color(source), log_density - log_density.max()
        label = f"source {source + 1}: " + ", ".join(f"{angle:.0f}°" for angle in peak)
        if len(peak) == 1:
            ax.plot(spans[0], depth, color=color, label=label)
            continue
        # Posteriors are sharp: evenly spaced depths would all lie at the peak.
        levels = np.quantile(depth, 1 - _SHARE) * np.linspace(1, 0, _LEVELS) ** 2
        map_of_source = depth.reshape(grid.shape[:-1]).T
        ax.contourf(*spans, map_of_source, levels, colors=[color], alpha=0.15)
        ax.contour(*spans, map_of_source, levels[:-1], colors=[color], linewidths=0.5)
        ax.plot(*peak, marker="o", color=color, markeredgecolor="white", linestyle="", label=label)
    ax.set(xlabel="azimuth (degrees)", xlim=(spans[0][-1], spans[0][0]))
    ax.set_ylabel("elevation (degrees)" if peaks.shape[1] == 2 else "log density below its peak (nats)")


@compiled
def _log_densities(positions: Any, points: Float[Array, "p 1 l"]) -> Float[Array, "p n"]:
    """Of every source's position, (p, n)."""
    mixture = positions.mixture
    with relaxed_promotion():
        return jax.lax.map(mixture.log_prob, points, batch_size=_CHUNK).astype(points.dtype)


def plot_delays(
    ax: "matplotlib.axes.Axes",
    delays: Float[np.ndarray, " delays"],
    delay_probs: Float[np.ndarray, "sources delays"],
) -> None:
    """Draw the probabilities of each source's delay between the ears: positive, on the left, if the left is earlier.

    Args:
        ax: where to draw.
        delays: s.
        delay_probs: each row adds up to 1.
    """
    for source, probabilities in enumerate(delay_probs):
        mean = 1000 * float(probabilities @ delays)
        label = f"source {source + 1}: {mean:.2f} ms"
        ax.fill_between(1000 * delays, probabilities, color=source_color(source), alpha=0.5, label=label)
    ax.set(xlabel="delay of the right ear (ms)", ylabel="probability", xlim=(1000 * delays[-1], 1000 * delays[0]))


def _span(
    means: Float[np.ndarray, "n k"], peaks: Float[np.ndarray, " n"], limit: float
) -> Float[np.ndarray, " points"]:
    """Degrees that hold all pieces' means that may matter, and the peaks, within the limit."""
    low, high = np.quantile(means, [0.05, 0.95])
    low, high = np.clip([min(low, peaks.min()), max(high, peaks.max())], -limit, limit)
    return np.arange(low - _MARGIN, high + _MARGIN + _STEP, _STEP)
