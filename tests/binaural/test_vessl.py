"""VESSL with each of its settings, on cues of two directions in turn."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from two_voices import AZIMUTHS

import vbss
from vbss.binaural import VESSLSettings, infer_vessl
from vbss.binaural.vessl import BEST, PAPER, REVERBERANT, vessl_model
from vbss.errors import InputError

FRAMES = 40


@pytest.fixture(scope="module")
def turns(calibration):
    """Cues of two directions, one of which rules each bin, with the noise of single frames; and which one."""
    azimuths = jnp.radians(jnp.array(AZIMUTHS, jnp.float32))[:, None]
    is_cue, ppam = np.asarray(calibration.cues.is_cue), calibration.ppam
    of_directions = np.zeros((2, is_cue.size), np.float32)
    of_directions[:, is_cue.reshape(-1)] = np.asarray(ppam.forward(azimuths).mean)
    of_directions = of_directions.reshape(2, *is_cue.shape)
    rng = np.random.default_rng(0)
    owner = rng.integers(2, size=(is_cue.shape[1], FRAMES))
    cues = np.where(owner[None] == 0, of_directions[0][..., None], of_directions[1][..., None])
    cues = cues + np.array([2.0, 0.2, 0.2])[:, None, None] * rng.standard_normal(cues.shape)
    is_observed = rng.uniform(size=owner.shape) < 0.7
    return jnp.asarray(cues, jnp.float32), jnp.asarray(is_observed), owner


def found_azimuths(solution):
    return np.degrees(np.asarray(solution.model.positions(solution.posterior).peak)[:, 0])


@pytest.mark.parametrize("settings", [BEST, PAPER, REVERBERANT], ids=["best", "paper", "reverberant"])
def test_positions_and_masks_of_two_directions(calibration, turns, settings):
    cues, is_observed, owner = turns
    solution = infer_vessl(calibration, cues, is_observed, 2, settings, key=jr.key(1))
    assert solution.status in (vbss.Status.converged, vbss.Status.max_steps)
    assert solution.num_steps <= settings.max_steps
    azimuths = found_azimuths(solution)
    order = np.argsort(-azimuths)
    np.testing.assert_allclose(azimuths[order], AZIMUTHS, atol=3)
    masks = np.asarray(solution.model.masks(solution.posterior, cues))[..., order]
    assert masks.dtype == np.float32 and masks.shape == (*owner.shape, 2)
    np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-5)
    assert (masks.argmax(-1) == owner).mean() > 0.9
    assert solution.model.has_outliers == (settings is BEST)
    assert solution.model.labels is None


def test_the_same_key_gives_the_same_inference(calibration, turns):
    cues, is_observed, _ = turns
    random = dataclasses.replace(PAPER, stage_steps=2, max_steps=3)
    again = [infer_vessl(calibration, cues, is_observed, 2, random, key=jr.key(seed)) for seed in (4, 4)]
    np.testing.assert_array_equal(again[0].elbo, again[1].elbo)
    for ours, theirs in zip(*(jax.tree.leaves(solution.posterior) for solution in again), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_best_start_has_the_highest_bound(calibration, turns):
    cues, is_observed, _ = turns
    one = infer_vessl(calibration, cues, is_observed, 2, dataclasses.replace(BEST, num_candidates=1), key=jr.key(1))
    some = infer_vessl(calibration, cues, is_observed, 2, BEST, key=jr.key(1))
    assert some.elbo[-1] >= one.elbo[-1] - 1e-3 * abs(one.elbo[-1])


@pytest.mark.parametrize(
    ("num_sources", "settings"), [(1, BEST), (3, VESSLSettings(1, 1, progressive=False, max_steps=3))]
)
def test_other_numbers_of_sources(calibration, turns, num_sources, settings):
    cues, is_observed, _ = turns
    solution = infer_vessl(calibration, cues, is_observed, num_sources, settings)
    assert solution.model.positions(solution.posterior).peak.shape == (num_sources, 1)
    assert np.isfinite(solution.elbo).all()


def test_outliers_spread_as_far_as_the_cues(calibration, turns):
    cues, is_observed, _ = turns
    model = vessl_model(calibration, cues, is_observed, 2, BEST)
    wide = vessl_model(calibration, 3 * cues, is_observed, 2, BEST)
    precision = np.asarray(model.outlier_precision)[np.asarray(model.is_cue)]
    assert (precision > 0).all() and np.isfinite(precision).all()
    assert (np.asarray(wide.outlier_precision)[0] <= np.asarray(model.outlier_precision)[0] + 1e-6).mean() > 0.9


def test_impossible_recordings_are_refused(calibration, turns):
    cues, is_observed, _ = turns
    for arguments, message in [
        ((cues, is_observed, 0), "num_sources must be a whole number, 1 or more"),
        ((cues, is_observed, 7), "must not exceed the 6 pieces"),
        ((cues[:1], is_observed, 2), "cues must be real of shape"),
        ((cues[:, :9], is_observed[:9], 2), "cues must be real of shape"),
        ((cues, jnp.zeros_like(is_observed), 2), "nothing was observed"),
    ]:
        with pytest.raises(InputError, match=message):
            infer_vessl(calibration, *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_candidates": -1}, "num_candidates"),
        ({"num_candidates": 0, "num_random": 0}, "must not both be 0"),
        ({"num_random": -1}, "num_random"),
        ({"outlier_probability": 1.0}, "outlier_probability"),
        ({"outlier_probability": float("nan")}, "outlier_probability"),
        ({"weight_count": -1.0}, "weight_count"),
        ({"weight_count": float("inf")}, "weight_count"),
        ({"trial_steps": 0}, "trial_steps"),
        ({"trial_steps": 51}, "trial_steps must be a whole number, from 1 to 50"),
        ({"stage_steps": 51}, "stage_steps must be a whole number, from 1 to 50"),
        ({"level_stride": 0}, "level_stride"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        VESSLSettings(**change)
