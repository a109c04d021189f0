import fast_bss_eval
import numpy as np
import pytest
from scipy import signal

from vbss.errors import InputError
from vbss.metrics import angular_error, pairwise_ratios, separation_ratios, signal_to_distortion_ratio


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


@pytest.mark.parametrize("measure", [signal_to_distortion_ratio, separation_ratios])
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r, e: (r[:, 1:], e), r"\(3, 7999\) and \(3, 8000\)"),
        (lambda r, e: (r[0], e[0]), "shape"),
        (lambda r, e: (r[:0], e[:0]), "shape"),
        (lambda r, e: (r[:, :511], e[:, :511]), "511"),
        (lambda r, e: (r * [[1], [0], [1]], e), "reference 1 is zero"),
        (lambda r, e: (r, e * np.nan), "estimates must be finite"),
    ],
)
def test_bad_signals_are_refused(references, measure, break_it, message):
    with pytest.raises(InputError, match=message):
        measure(*break_it(references, references))


def test_wrong_numbers_of_estimates_are_refused(references):
    with pytest.raises(InputError, match=r"\(2, 8000\) and \(3, 8000\)"):
        signal_to_distortion_ratio(references[:2], references)
    with pytest.raises(InputError, match="at least as many as references, got 2 for 3"):
        separation_ratios(references, references[:2])


def test_sdr_of_all_ratios_is_the_sdr_alone(references):
    noise = np.random.default_rng(1).standard_normal(references.shape)
    estimates = (references + noise * [[0.1], [0.3], [1.0]])[[2, 0, 1]]
    ratios, permutation = signal_to_distortion_ratio(references, estimates)
    found = separation_ratios(references, estimates)
    np.testing.assert_allclose(found.sdr, ratios, atol=1e-8)
    np.testing.assert_array_equal(found.permutation, permutation)


def test_interference_is_told_from_other_distortion(references):
    noise = np.random.default_rng(1).standard_normal(references.shape)
    others = references[[1, 2, 0]]
    found = separation_ratios(references, references + 0.1 * others + 0.1 * noise)
    np.testing.assert_allclose(found.sir, 20.0, atol=1.0)  # filters of the others explain some of the noise, too
    np.testing.assert_allclose(found.sdr, -10 * np.log10(0.02), atol=0.6)
    np.testing.assert_allclose(found.si_sdr, -10 * np.log10(0.02), atol=0.2)


def test_artefacts_are_what_no_source_explains(references):
    noise = np.random.default_rng(1).standard_normal(references.shape)
    others = references[[1, 2, 0]]
    found = separation_ratios(references, references + 0.5 * others + 0.1 * noise)
    explained = 1 - 3 * 512 / references.shape[1]  # what the filters leave of the noise
    np.testing.assert_allclose(found.sar, 10 * np.log10((1 + 0.25) / (0.01 * explained)), atol=0.3)
    assert np.all(separation_ratios(references, references + 0.5 * others).sar > 100)
    single = separation_ratios(references[:1], references[:1] + noise[:1])
    np.testing.assert_allclose(single.sar, single.sdr, atol=1e-8)


def test_ratios_are_the_librarys_own(references):
    estimates = references + 0.5 * references[[1, 2, 0]] + np.random.default_rng(1).standard_normal(references.shape)
    *own, permutation = fast_bss_eval.bss_eval_sources(references, estimates)
    found = separation_ratios(references, estimates)
    np.testing.assert_array_equal(found.permutation, permutation)
    np.testing.assert_allclose([found.sdr, found.sir, found.sar], own, atol=1e-6)


def test_scale_invariant_ratio_forgives_a_gain_but_no_filter(references):
    references[:, -10:] = 0.0  # room for the delay
    delayed = np.roll(references, 5, axis=1)
    found = separation_ratios(references, -3.0 * (references + delayed))
    np.testing.assert_allclose(found.si_sdr, 0.0, atol=0.3)
    assert np.all(found.sdr > 90)
    assert np.all(separation_ratios(references, -3.0 * references).si_sdr > 100)


def test_spare_estimates_are_left_over(references):
    noise = np.random.default_rng(1).standard_normal(references.shape)
    estimates = np.concatenate(
        [noise[:1], references[[1]], 0 * noise[:1], references[[2]], references[[0]] + noise[:1]]
    )
    found = separation_ratios(references, estimates)
    np.testing.assert_array_equal(found.permutation, [4, 1, 3])
    np.testing.assert_allclose(found.sdr[0], 0.0, atol=0.6)


def test_all_ratios_of_silence_and_of_a_single_source_are_finite(references):
    silent = separation_ratios(references[:2], np.stack([references[0], np.zeros(references.shape[1])]))
    assert silent.sdr[1] == silent.sir[1] == silent.sar[1] == silent.si_sdr[1] == -120
    single = separation_ratios(references[:1], 1e-9 * references[:1])
    assert single.sir[0] == 120
    assert single.si_sdr[0] > 100


def test_angular_error_goes_the_short_way_round():
    degrees = np.array([[10.0, 350.0, 20.0], [90.0, 270.0, 180.0], [-170.0, 170.0, 20.0], [0.0, 725.0, 5.0]])
    a, b, error = np.radians(degrees).T
    np.testing.assert_allclose(angular_error(a, b), error, atol=1e-12)
    np.testing.assert_allclose(angular_error(b, a), error, atol=1e-12)


def test_angular_error_broadcasts():
    assert angular_error(np.zeros((3, 1)), np.zeros(2)).shape == (3, 2)
    assert angular_error(0.0, 1.0) == pytest.approx(1.0)


def test_ratios_of_every_pair_hold_those_of_the_best_match():
    rng = np.random.default_rng(3)
    references = rng.normal(size=(2, 4000))
    estimates = references[::-1] + 0.1 * rng.normal(size=(2, 4000))
    sdr, sir = pairwise_ratios(references, estimates)
    best = separation_ratios(references, estimates)
    assert best.permutation.tolist() == [1, 0]
    np.testing.assert_allclose(sdr[[0, 1], [1, 0]], best.sdr)
    np.testing.assert_allclose(sir[[0, 1], [1, 0]], best.sir)
    assert sdr[0, 0] < 0 < sdr[0, 1]
