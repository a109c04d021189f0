from pathlib import Path

import numpy as np
import pytest

from vbss.plots import plot_long_separation
from vbss.separation import Block, LongSeparation
from vbss.settings import Settings


@pytest.mark.parametrize("expected_sdr", [[12.0, 9.0], None])
def test_every_source_has_its_line_in_every_panel(tmp_path, expected_sdr):
    places = [[0.1, 3.0], [None, 3.1], [0.2, 3.2]]
    blocks = tuple(
        Block(27.0 * n, 27.0 * n + 30, place, [0.4, 0.6], expected_sdr, {}, []) for n, place in enumerate(places)
    )
    sources = (Path("source_1.wav"), Path("source_2.wav"))
    separation = LongSeparation(sources, 8000, 84 * 8000, blocks, np.array([1.0, 3.0]), 0, Settings(), (), 1.0)
    figure = plot_long_separation(separation)
    directions, shares, ratios = figure.axes
    offsets = [np.ma.filled(points.get_offsets(), np.nan) for points in directions.collections]
    np.testing.assert_allclose(offsets[1], np.stack([[0.25, 0.7, 1.15], np.degrees([3.0, 3.1, 3.2])], 1))
    np.testing.assert_allclose(offsets[0][[0, 2], 1], np.degrees([0.1, 0.2]))
    assert np.isnan(offsets[0][1, 1])
    np.testing.assert_allclose(shares.lines[1].get_ydata(), [60, 60, 60])
    expected = [np.nan] * 3 if expected_sdr is None else [9.0] * 3
    np.testing.assert_allclose(ratios.lines[1].get_ydata(), expected)
    assert ratios.get_xlim() == pytest.approx((0, 1.4))
    figure.savefig(tmp_path / "long.png")
