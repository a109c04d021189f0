import numpy as np
import pytest

from vbss.errors import InputError
from vbss.scenes.directions import choose_azimuths, draw_azimuths


def smallest_distance(azimuths):
    differences = np.abs(np.angle(np.exp(1j * (azimuths[:, None] - azimuths))))
    return differences[np.triu_indices(len(azimuths), 1)].min()


@pytest.mark.parametrize(("count", "smallest"), [(2, 20.0), (4, 20.0), (4, 85.0)])
def test_drawn_azimuths_are_apart(count, smallest):
    generator = np.random.default_rng(0)
    draws = np.array([draw_azimuths(generator, count, np.radians(smallest)) for _ in range(200)])
    assert min(map(smallest_distance, draws)) >= np.radians(smallest) - 1e-12
    assert draws.min() >= -np.pi and draws.max() < np.pi


def test_drawn_azimuths_are_uniform_but_for_the_smallest_angle():
    generator = np.random.default_rng(1)
    draws = np.array([draw_azimuths(generator, 2, np.radians(20)) for _ in range(4000)])
    counts, _ = np.histogram(draws[:, 0], 8, (-np.pi, np.pi))
    np.testing.assert_allclose(counts, 500, atol=100)
    apart = np.degrees(np.angle(np.exp(1j * (draws[:, 1] - draws[:, 0])))) % 360
    counts, _ = np.histogram(apart, 8, (20, 340))
    np.testing.assert_allclose(counts, 500, atol=100)


def test_chosen_azimuths_are_given_ones_and_apart():
    generator = np.random.default_rng(0)
    given = [30.0 * step for step in range(12)]
    choices = [choose_azimuths(generator, given, 3, 90.0) for _ in range(50)]
    assert all(set(choice) <= set(given) for choice in choices)
    assert min(smallest_distance(np.radians(choice)) for choice in choices) >= np.radians(90) - 1e-9
    assert {azimuth for choice in choices for azimuth in choice} == set(given)


def test_azimuths_that_are_all_too_near_are_refused():
    with pytest.raises(InputError, match="no 3 of their 4 azimuths"):
        choose_azimuths(np.random.default_rng(0), [0.0, 90.0, 180.0, 270.0], 3, 100.0)
