import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vbss.errors import InputError
from vbss.models.affine_pieces import PiecewisePosterior
from vbss.plots.colors import source_color
from vbss.plots.positions import plot_delays, plot_positions


@pytest.fixture
def ax():
    return Figure().add_subplot()


def posterior(degrees, dtype=jnp.float32, deviation=2.0):
    """Two pieces for each source, one of them light; every mean is given, (sources, coordinates)."""
    means = np.radians(np.asarray(degrees, float))
    num_sources, size = means.shape
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.98, 0.02], dtype)), (num_sources, 2))
    both = jnp.asarray(np.stack([means, means + np.radians(15)], 1), dtype)
    precisions = jnp.broadcast_to(jnp.eye(size, dtype=dtype) / dtype(np.radians(deviation)) ** 2, (*both.shape, size))
    return PiecewisePosterior(logits, both, precisions)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_contours_and_marks_of_azimuths_and_elevations(ax, dtype):
    degrees = [[30.0, 10.0], [-40.0, -20.0]]
    plot_positions(ax, posterior(degrees, dtype))
    for line, expected, source in zip(ax.lines, degrees, range(2), strict=True):
        np.testing.assert_allclose(np.concatenate(line.get_data()), expected, atol=1e-4)
        assert to_hex(line.get_color()).upper() == source_color(source)
    assert ax.get_legend_handles_labels()[1] == ["source 1: 30°, 10°", "source 2: -40°, -20°"]
    left, right = ax.get_xlim()
    assert left > 30 > -40 > right  # the left is on the left
    assert ax.get_ylabel() == "elevation (degrees)"
    lines = ax.collections[1]  # the first source's contours hold its peak
    assert lines.get_datalim(ax.transData).contains(30, 10)


def test_log_densities_of_azimuths_alone(ax):
    plot_positions(ax, posterior([[30.0], [-40.0]]))
    for line, azimuth in zip(ax.lines, (30, -40), strict=True):
        angles, depths = line.get_data()
        assert depths.max() == 0 and angles[np.argmax(depths)] == pytest.approx(azimuth, abs=0.6)
        # Two degrees are a standard deviation.
        away = np.interp(azimuth - 4, angles, depths) - np.interp(azimuth, angles, depths)
        assert away == pytest.approx(-2, abs=0.3)
    assert ax.get_legend_handles_labels()[1] == ["source 1: 30°", "source 2: -40°"]
    assert ax.get_ylabel() == "log density below its peak (nats)"


@pytest.mark.parametrize("deviation", [0.01, 60.0])
def test_very_sharp_and_very_wide_posteriors_are_drawn(ax, deviation):
    plot_positions(ax, posterior([[30.0, 10.0]], deviation=deviation))
    assert len(ax.collections) == 2


def test_pieces_that_explain_nothing_do_not_spread_the_map(ax):
    found = posterior([[30.0, 10.0]])
    far = found._replace(means=found.means.at[0, 1].set(jnp.radians(1e4)))
    plot_positions(ax, far)
    left, right = ax.get_xlim()
    assert right >= -190 and left <= 192 and left > 30 > right


def test_other_coordinates_are_refused(ax):
    with pytest.raises(InputError, match="got 3 coordinates"):
        plot_positions(ax, posterior([[1.0, 2.0, 3.0]]))


def test_delays_have_the_left_on_the_left(ax):
    delays = np.linspace(-8e-4, 8e-4, 33)
    probabilities = np.eye(33)[[28, 4]]
    plot_delays(ax, delays, probabilities)
    assert ax.get_xlim() == pytest.approx((0.8, -0.8))
    assert ax.get_legend_handles_labels()[1] == ["source 1: 0.60 ms", "source 2: -0.60 ms"]
    for area, source, peak in zip(ax.collections, range(2), (0.6, -0.6), strict=True):
        assert to_hex(area.get_facecolor()[0]).upper() == source_color(source)
        points = area.get_paths()[0].vertices
        assert points[np.argmax(points[:, 1]), 0] == pytest.approx(peak)
