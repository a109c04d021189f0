import numpy as np
import pytest
from scipy import signal

from vbss.errors import InputError
from vbss.metrics import angular_error, signal_to_distortion_ratio


@pytest.fixture
def references():
    return np.random.default_rng(0).standard_normal((3, 8000))


def test_ratio_of_added_noise(references):
    noise = np.random.default_rng(1).standard_normal(references.shape)
    levels = np.array([20.0, 10.0, 0.0])
    estimates = references + 10 ** (-levels[:, None] / 20) * noise
    ratios, permutation = signal_to_distortion_ratio(references, estimates)
    # 512 free taps explain about 512/8000 of the noise as filtered reference.
    np.testing.assert_allclose(ratios, levels, atol=0.6)
    np.testing.assert_array_equal(permutation, [0, 1, 2])


def test_permutation_points_from_references_to_estimates(references):
    order = np.array([2, 0, 1])
    noise = np.random.default_rng(1).standard_normal(references.shape)
    levels = np.array([30.0, 20.0, 10.0])
    estimates = (references + 10 ** (-levels[:, None] / 20) * noise)[order]
    ratios, permutation = signal_to_distortion_ratio(references, estimates)
    np.testing.assert_array_equal(order[permutation], [0, 1, 2])
    np.testing.assert_allclose(ratios, levels, atol=0.6)


def test_a_filter_of_512_taps_is_forgiven_and_a_longer_one_is_not(references):
    references[:, -1000:] = 0.0  # room for the echo

    def echo(delay):
        return signal.lfilter([1.0, *np.zeros(delay - 1), 1.0], [1.0], references, axis=-1)

    forgiven, _ = signal_to_distortion_ratio(references, echo(500))
    punished, _ = signal_to_distortion_ratio(references, echo(600))
    assert np.all(forgiven > 100)
    np.testing.assert_allclose(punished, 0.0, atol=1.0)


def test_level_does_not_matter(references):
    estimates = references + 0.1 * np.random.default_rng(1).standard_normal(references.shape)
    loud, _ = signal_to_distortion_ratio(references, estimates)
    quiet, _ = signal_to_distortion_ratio(1e-12 * references, 1e-9 * estimates)
    np.testing.assert_allclose(quiet, loud, atol=1e-6)


def test_perfect_and_silent_estimates_are_finite(references):
    estimates = references.copy()
    estimates[1] = 0.0
    ratios, permutation = signal_to_distortion_ratio(references, estimates)
    assert ratios[1] == -120
    assert np.all(ratios[[0, 2]] > 100)
    np.testing.assert_array_equal(permutation, [0, 1, 2])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r, e: (r[:2], e), r"\(2, 8000\) and \(3, 8000\)"),
        (lambda r, e: (r[0], e[0]), "shape"),
        (lambda r, e: (r[:0], e[:0]), "shape"),
        (lambda r, e: (r[:, :511], e[:, :511]), "511"),
        (lambda r, e: (r * [[1], [0], [1]], e), "reference 1 is zero"),
        (lambda r, e: (r, e * np.nan), "estimates must be finite"),
    ],
)
def test_bad_signals_are_refused(references, break_it, message):
    with pytest.raises(InputError, match=message):
        signal_to_distortion_ratio(*break_it(references, references))


def test_angular_error_goes_the_short_way_round():
    degrees = np.array([[10.0, 350.0, 20.0], [90.0, 270.0, 180.0], [-170.0, 170.0, 20.0], [0.0, 725.0, 5.0]])
    a, b, error = np.radians(degrees).T
    np.testing.assert_allclose(angular_error(a, b), error, atol=1e-12)
    np.testing.assert_allclose(angular_error(b, a), error, atol=1e-12)


def test_angular_error_broadcasts():
    assert angular_error(np.zeros((3, 1)), np.zeros(2)).shape == (3, 2)
    assert angular_error(0.0, 1.0) == pytest.approx(1.0)
