import numpy as np
import pytest
from paired import crossed_interval, mean_interval, paired_difference
from scipy import stats


def test_interval_is_that_of_students_t():
    values = np.random.default_rng(0).normal(3.0, 2.0, 30)
    interval = mean_interval(dict(enumerate(values)))
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(interval, (values.mean(), low, high, 30), rtol=1e-12)


def test_difference_is_paired():
    generator = np.random.default_rng(1)
    scenes = 10 * generator.standard_normal(20)  # how hard a scene is does not widen the interval
    ours, theirs = scenes + 1.0 + 0.1 * generator.standard_normal(20), scenes
    difference = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose(difference, ((ours - theirs).mean(), low, high, 20), rtol=1e-12)
    assert difference.high - difference.low < 0.2


def test_only_scenes_that_both_have_count():
    difference = paired_difference({0: 1.0, 1: 5.0, 7: 100.0}, {1: 2.0, 0: 0.0, 3: -100.0})
    assert difference.mean == 2.0
    assert difference.count == 2


def test_one_scene_has_no_finite_interval_and_none_no_mean():
    assert mean_interval({4: 2.5}) == (2.5, -np.inf, np.inf, 1)
    with pytest.raises(ValueError, match="empty"):
        paired_difference({0: 1.0}, {1: 1.0})


def test_speakers_in_common_widen_the_interval_as_they_must():
    rng, trials = np.random.default_rng(0), 2000
    holds = np.zeros(2)
    for _ in range(trials):
        table = rng.normal(size=(5, 1)) + rng.normal(size=(1, 5)) + 0.5 * rng.normal(size=(5, 5))
        crossed, apart = crossed_interval(table), mean_interval(dict(enumerate(table.ravel())))
        holds += [crossed.low < 0 < crossed.high, apart.low < 0 < apart.high]
        assert crossed.mean == pytest.approx(apart.mean) and crossed.count == apart.count == 25
    assert 0.93 < holds[0] / trials < 0.98 and holds[1] / trials < 0.8


def test_tables_without_spread_and_of_one_row():
    assert crossed_interval(np.full((2, 3), 1.5)) == (1.5, 1.5, 1.5, 6)
    assert crossed_interval(np.array([[1.0, 2.0]])) == (1.5, -np.inf, np.inf, 2)
