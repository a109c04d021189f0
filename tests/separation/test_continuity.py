import numpy as np
import pytest

from vbss.separation.continuity import carried, places_at, same_order


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
    ("found", "energies", "expected_sdr", "expected"),
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
def test_directions_are_carried_where_they_are_clear(found, energies, expected_sdr, expected):
    ratios = None if expected_sdr is None else np.array(expected_sdr)
    result = carried(onehot(10, 30), onehot(*found), np.array(energies), ratios)
    np.testing.assert_array_equal(result, onehot(*expected))


def test_failed_inference_moves_nobody():
    found = np.full((2, 72), np.nan)
    result = carried(onehot(10, 30), found, np.full(2, 0.5), None)
    np.testing.assert_array_equal(result, onehot(10, 30))


def test_covariances_are_carried_where_they_are_clear_and_of_all_channels():
    rng = np.random.default_rng(0)
    before, found = rng.standard_normal((2, 3, 5, 4, 4, 2))  # sources, frequencies, microphones, microphones, parts
    np.testing.assert_array_equal(carried(before, found, np.full(3, 0.3), None), found)
    result = carried(before, found, np.array([0.5, 0.5, 1e-5]), np.array([9.0, 4.0, 9.0]))
    np.testing.assert_array_equal(result, np.stack([found[0], before[1], before[2]]))
    fewer = places_at(found, np.array([0, 2, 3, 5]), np.array([0, 3, 5]))
    np.testing.assert_array_equal(fewer, found[:, :, [0, 2, 3]][:, :, :, [0, 2, 3]])
    np.testing.assert_array_equal(carried(before, fewer, np.full(3, 0.3), None), before)
    directions = onehot(3, 4)
    np.testing.assert_array_equal(places_at(directions, np.arange(4), np.arange(2)), directions)
