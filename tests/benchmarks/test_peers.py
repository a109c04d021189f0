import numpy as np
import oracles
import peers
import pytest
from observation import Estimate, observe, separate_or_give_up
from scipy.optimize import linear_sum_assignment

from vbss.metrics import angular_error, separation_ratios
from vbss.scenes import demo_scene

AUXIVA = {"window": 0.128, "model": "gauss", "iterations": 20}


@pytest.fixture(scope="module")
def scene():
    return demo_scene(0, 8000, 3.0)


def test_transform_and_its_inverse_give_the_mixture_back(scene):
    observation = observe(scene)
    samples = peers._inverse(peers._forward(observation, 0.128), observation, 0.128)
    np.testing.assert_allclose(samples, scene.mixture, atol=1e-12)


@pytest.mark.parametrize(
    ("separate", "settings", "num_estimates", "least"),
    [
        (peers.auxiva, {**AUXIVA, "outputs": "microphones"}, 4, 8.0),
        (peers.auxiva, {**AUXIVA, "outputs": "sources"}, 2, 4.0),
        (peers.auxiva_clustered, AUXIVA, 2, 8.0),
        (peers.auxiva_determined, AUXIVA, 2, 3.0),
        (peers.ilrma, {"window": 0.128, "components": 2, "iterations": 20}, 4, 4.0),
        (peers.fastmnmf2, {"window": 0.128, "components": 4, "iterations": 10, "spare_sources": 1}, 3, 3.0),
    ],
)
def test_a_peer_separates(scene, separate, settings, num_estimates, least):
    estimate = separate(observe(scene), **settings)
    assert estimate.sources.shape == (num_estimates, scene.mixture.shape[1])
    assert separation_ratios(scene.images[:, 0], estimate.sources).sdr.mean() > least
    np.testing.assert_array_equal(separate(observe(scene), **settings).sources, estimate.sources)


def test_the_cacgmm_separates(scene):
    pytest.importorskip("ssspy", reason="ssspy comes with the extra for benchmarks")
    estimate = peers.cacgmm(observe(scene), window=0.128, iterations=10, alignment="amplitude_score", sweeps=5)
    assert estimate.sources.shape == (2, scene.mixture.shape[1])
    assert (
        separation_ratios(scene.images[:, 0], estimate.sources).sdr.mean() > 1.0
    )  # from a random start it is far from done


@pytest.mark.parametrize("algorithm", ["SRP", "NormMUSIC"])
def test_a_peer_localises(scene, algorithm):
    found = peers.localise(observe(scene), algorithm=algorithm, window=0.064, lowest=200.0, highest=3800.0)
    errors = np.degrees(angular_error(scene.azimuths[:, None], found.directions[None]))
    assert errors[linear_sum_assignment(errors)].max() < 10


@pytest.mark.parametrize(("mask", "output"), [("binary", "masked"), ("ratio", "wiener")])
def test_the_truth_separates_best(scene, mask, output):
    estimate = oracles.ideal_mask(scene, mask=mask, output=output)
    assert separation_ratios(scene.images[:, 0], estimate.sources).sdr.min() > 12
    untouched = oracles.untouched(scene).sources
    np.testing.assert_array_equal(untouched, scene.mixture[[0, 0]])


def _meets_a_singular_matrix(observation):
    raise np.linalg.LinAlgError("Singular matrix")


def _gives_nan(observation):
    return Estimate(observation.mixture[:2] * np.nan)


@pytest.mark.parametrize("separate", [_meets_a_singular_matrix, _gives_nan])
def test_a_failure_counts_as_the_mixture_itself(scene, separate):
    estimate, failed = separate_or_give_up(separate, observe(scene))
    assert failed
    np.testing.assert_array_equal(estimate.sources, scene.mixture[[0, 0]])
