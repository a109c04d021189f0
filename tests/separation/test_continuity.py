import numpy as np
import pytest

from vbss.audio import azimuth_grid
from vbss.separation.continuity import carried_directions, same_order

AZIMUTHS = azimuth_grid(72)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_sources_are_known_by_their_sound(order):
    rng = np.random.default_rng(0)
    before = rng.standard_normal((3, 500)).astype(np.float32)
    after = (before + 0.5 * rng.standard_normal((3, 500)))[list(order)].astype(np.float32)
    np.testing.assert_array_equal(same_order(before, after), np.argsort(order))


def test_loud_sources_decide_and_what_is_alike_stays():
    rng = np.random.default_rng(0)
    loud, faint = rng.standard_normal(500), 1e-3 * rng.standard_normal(500)
    np.testing.assert_array_equal(same_order(np.stack([loud, faint]), np.stack([0 * faint, loud])), [1, 0])
    np.testing.assert_array_equal(same_order(np.zeros((3, 500)), rng.standard_normal((3, 500))), [0, 1, 2])
    alike = np.stack([loud, 0.97 * loud])
    np.testing.assert_array_equal(same_order(alike, alike[::-1]), [0, 1])


def onehot(*places):
    return np.eye(72)[list(places)]


@pytest.mark.parametrize(
    ("found", "energies", "expected_sdr", "carried"),
    [
        ([12, 40], [0.5, 0.5], None, [12, 40]),
        ([12, 40], [0.5, 0.5], [9.0, 6.0], [12, 40]),
        ([12, 40], [0.5, 0.5], [9.0, 4.0], [12, 30]),  # unclear
        ([12, 40], [0.9999, 0.0001], None, [12, 30]),  # silent
        ([12, 13], [0.5, 0.5], None, [10, 30]),  # both at one place
        ([30, 40], [0.5, 0.5], [9.0, 4.0], [10, 30]),  # where the unclear one was
        ([0, 71], [0.5, 0.5], None, [10, 30]),  # neighbours across 0
    ],
)
def test_directions_are_carried_where_they_are_clear(found, energies, expected_sdr, carried):
    ratios = None if expected_sdr is None else np.array(expected_sdr)
    result = carried_directions(onehot(10, 30), onehot(*found), AZIMUTHS, np.array(energies), ratios)
    np.testing.assert_array_equal(result, onehot(*carried))


def test_failed_inference_moves_nobody():
    found = np.full((2, 72), np.nan)
    result = carried_directions(onehot(10, 30), found, AZIMUTHS, np.full(2, 0.5), None)
    np.testing.assert_array_equal(result, onehot(10, 30))
