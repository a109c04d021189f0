import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vbss.audio import azimuth_grid
from vbss.errors import InputError
from vbss.plots import plot_directions
from vbss.plots.colors import source_color


@pytest.fixture
def ax():
    return Figure().add_subplot(projection="polar")


def places(ax, azimuths, radii):
    """Points on the page, relative to the centre, in units of the outermost ring."""
    ax.apply_aspect()
    points = ax.transData.transform(np.column_stack([azimuths, radii])) - ax.transData.transform([(0, 0)])
    return points / (ax.transData.transform([(0, 1)]) - ax.transData.transform([(0, 0)]))[0, 0]


def test_posteriors_are_drawn_at_right_angles(ax):
    posterior = np.full((2, 72), 0.001)
    posterior[0, 18], posterior[1, 36] = 1 - 0.071, 1 - 0.071
    plot_directions(ax, azimuth_grid(72), posterior)
    up, left = ax.patches
    for patch, azimuth in [(up, np.pi / 2), (left, np.pi)]:
        angles, radii = patch.get_xy().T
        far = np.abs(radii - radii.max()) < 1e-6
        np.testing.assert_allclose(angles[far].min(), azimuth - np.pi / 72)
        np.testing.assert_allclose(angles[far].max(), azimuth + np.pi / 72)
    # 0 degrees to the right, counter-clockwise.
    np.testing.assert_allclose(places(ax, [np.pi / 2], [1]), [[0, 1]], atol=1e-9)
    marks = np.concatenate([places(ax, *line.get_data()) for line in ax.lines])
    np.testing.assert_allclose(marks, [[0, 1], [-1, 0]], atol=1e-9)


def test_distance_is_the_logarithm_of_probability(ax):
    posterior = np.array([[1.0, 0.1, 0.01, 1e-4, 1e-9, 0.0]])
    plot_directions(ax, azimuth_grid(6), posterior)
    radii = ax.patches[0].get_xy()[:30:5, 1]
    np.testing.assert_allclose(radii, [1, 0.75, 0.5, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(ax.get_yticks(), [0.25, 0.5, 0.75, 1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.001", "0.01", "0.1", "1"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_certain_direction_is_visible(ax, dtype):
    plot_directions(ax, azimuth_grid(72), np.eye(72, dtype=dtype)[[7]])
    # matplotlib takes negative distances for missing and would draw nothing.
    assert np.all(ax.patches[0].get_xy()[:, 1] >= 0)
    assert np.isfinite(ax.patches[0].get_window_extent().bounds).all()


def test_each_source_has_its_colour_and_label(ax):
    posterior = np.zeros((4, 72))
    posterior[range(4), [0, 10, 71, 10]] = 0.9, 0.8, 0.7, 0.6
    plot_directions(ax, azimuth_grid(72), posterior)
    colors = [to_hex(patch.get_facecolor()).upper() for patch in ax.patches]
    assert colors == [source_color(source) for source in range(4)]
    assert len(set(colors)) == 4
    assert [to_hex(line.get_color()).upper() for line in ax.lines] == colors
    assert ax.get_legend_handles_labels()[1] == [
        "source 1: 0° (p = 0.90)",
        "source 2: 50° (p = 0.80)",
        "source 3: 355° (p = 0.70)",
        "source 4: 50° (p = 0.60)",
    ]


def test_the_scale_keeps_clear_of_the_directions(ax):
    plot_directions(ax, azimuth_grid(72), np.eye(72)[[9, 20]])  # 45 and 100 degrees
    assert ax.get_rlabel_position() == pytest.approx(247.5)


def test_a_single_direction_is_drawn_as_a_disc(ax):
    plot_directions(ax, azimuth_grid(1), np.ones((1, 1)))
    np.testing.assert_allclose(ax.patches[0].get_xy()[:, 1], 1)


def test_axes_that_are_not_polar_are_refused():
    with pytest.raises(InputError, match="ax must be polar axes, got rectilinear"):
        plot_directions(Figure().add_subplot(), azimuth_grid(4), np.eye(4)[:1])
