"""A head is learnt from responses or recordings, kept in a file, and compared with held-out directions."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from head_sets import SAMPLE_RATE, grid, rigid_responses

import vbss
from vbss.audio import InterauralCues, Recording
from vbss.binaural import (
    Calibration,
    calibrate,
    calibrate_from_cues,
    calibrate_from_recordings,
    fit_maps,
    held_out_scores,
)
from vbss.errors import InputError
from vbss.scenes import HeadResponses

CUES = InterauralCues(SAMPLE_RATE, window=0.016, hop=0.008)


def rigid(azimuths, elevations):
    responses = rigid_responses(azimuths, elevations)
    return HeadResponses(responses, np.radians(azimuths), np.radians(elevations), SAMPLE_RATE, "rigid")


@pytest.fixture(scope="module")
def ahead():
    """Azimuths of one elevation."""
    azimuths = np.arange(-80, 81, 10.0)
    return rigid(azimuths, np.zeros_like(azimuths))


@pytest.fixture(scope="module")
def calibration(ahead):
    return calibrate(ahead, CUES, seconds=0.2)


def test_azimuths_alone_where_elevations_are_equal(calibration, ahead):
    assert not calibration.has_elevations and calibration.name == "rigid"
    np.testing.assert_allclose(calibration.directions[:, 0], ahead.azimuths, rtol=1e-6)
    assert len(calibration.maps) == 1 and len(calibration.ppam.log_weights) == 3
    assert calibration.ppam.coefficients.shape == (3, int(CUES.is_cue.sum()), 2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(calibration) if jnp.issubdtype(leaf.dtype, float))
    # The map gives the cues of a direction between those that it was learnt from.
    expected = rigid(np.array([25.0]), np.zeros(1)).calibration_cues(CUES, seconds=0.2, seed=1)[0]
    found = calibration.ppam.forward(jnp.radians(jnp.array([[25.0]], jnp.float32))).mean[0]
    # Level differences come first, and here are 10 sin(25 degrees) dB.
    num = CUES.is_cue.shape[1]
    np.testing.assert_allclose(found[:num].mean(), expected[0].mean(), atol=0.5)


def test_elevations_that_differ_are_learnt():
    azimuths, elevations = grid(step=30)
    heads = rigid(azimuths, elevations).within((-np.pi / 2, np.pi / 2))
    found = calibrate(heads, CUES, seconds=0.1)
    assert found.has_elevations and found.directions.shape == (21, 2)
    assert len(found.ppam.log_weights) == 4


def test_elevations_that_rounding_parts_are_equal(ahead):
    wobbling = dataclasses.replace(ahead, elevations=1e-9 * np.arange(len(ahead)))
    assert not calibrate(wobbling, CUES, seconds=0.1, num_pieces=1).has_elevations


def test_a_file_keeps_all_of_it(calibration, tmp_path):
    vbss.save(tmp_path / "head.vbss", calibration)
    again = vbss.load(tmp_path / "head.vbss")
    assert isinstance(again, Calibration) and (again.cues, again.name) == (calibration.cues, calibration.name)
    assert jax.tree.structure(again) == jax.tree.structure(calibration)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(calibration), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_the_same_seed_gives_the_same_calibration(calibration, ahead):
    again, other = (calibrate(ahead, CUES, seconds=0.2, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.ppam.coefficients, calibration.ppam.coefficients)
    assert not np.array_equal(other.ppam.coefficients, calibration.ppam.coefficients)


def test_recordings_of_noise_give_what_responses_do(calibration, ahead):
    # At a rate above that of the cues, of other lengths, and of double precision.
    noises = ahead.resampled(2 * SAMPLE_RATE).white_noise(0.2, seed=3)
    recordings = [
        (Recording(noise[:, : len(noise[0]) - 100 * (n % 2)].astype(np.float64), 2 * SAMPLE_RATE), azimuth, 0.0)
        for n, (noise, azimuth) in enumerate(zip(noises, ahead.azimuths.tolist(), strict=True))
    ]
    found = calibrate_from_recordings(recordings, CUES, name="mine")
    assert found.name == "mine" and not found.has_elevations
    np.testing.assert_allclose(found.directions, calibration.directions)
    left, right = (
        c.ppam.forward(jnp.array([[0.5]], jnp.float32)).mean[0, : CUES.is_cue.shape[1]] for c in (found, calibration)
    )
    np.testing.assert_allclose(left[:50], right[:50], atol=1.5)


def test_numbers_of_pieces_grow_and_held_out_directions_choose(ahead):
    found = calibrate(ahead, CUES, num_pieces=(1, 3), seconds=0.2)
    assert [len(ppam.log_weights) for ppam in found.maps] == [1, 3] and found.ppam is found.maps[-1]
    between = rigid(np.arange(-75, 76, 10.0), np.zeros(16))
    cues = between.calibration_cues(CUES, seconds=0.2, seed=1)
    present = jnp.asarray(cues.reshape(16, -1)[:, np.asarray(CUES.is_cue).reshape(-1)])
    scores = held_out_scores(found.maps, jnp.asarray(between.azimuths, jnp.float32)[:, None], present)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    assert scores[1] > scores[0]  # this head is not linear in the azimuth


def test_maps_of_missing_cues(ahead):
    positions = jnp.asarray(ahead.azimuths, jnp.float32)[:, None]
    cues = jnp.sin(positions * jnp.arange(1, 4, dtype=jnp.float32)[None])
    is_observed = jnp.ones(cues.shape, bool).at[3, 1].set(False)
    found = [
        fit_maps(positions, jnp.where(is_observed, cues, junk), [2], is_observed=is_observed)[0] for junk in (0.0, 7.0)
    ]
    np.testing.assert_allclose(found[0].coefficients, found[1].coefficients, rtol=1e-5, atol=1e-6)


def test_only_level_differences(ahead):
    cues = dataclasses.replace(CUES, phase=False)
    found = calibrate(ahead, cues, seconds=0.1, num_pieces=1)
    assert found.ppam.coefficients.shape[1] == cues.is_cue.shape[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pieces": 0}, "num_pieces must be a whole number, from 1 to 17"),
        ({"num_pieces": 18}, "num_pieces must be a whole number, from 1 to 17"),
        ({"num_pieces": [3, 2]}, "num_pieces must grow"),
        ({"num_pieces": [2, 2]}, "num_pieces must grow"),
        ({"num_pieces": []}, "num_pieces must grow"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 0.01}, "no whole window"),
        ({"ridge": -1.0}, "ridge"),
        ({"ridge": float("nan")}, "ridge"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_options_are_refused(ahead, options, message):
    unchecked = inspect.unwrap(calibrate)
    with pytest.raises(InputError, match=message):
        unchecked(ahead, CUES, **{"seconds": 0.1} | options)


def test_too_few_directions_are_refused(ahead):
    with pytest.raises(InputError, match="at least 4 directions, got 3"):
        calibrate(ahead.take([0, 1, 2]), CUES, seconds=0.1)
    with pytest.raises(InputError, match="at least 4 directions, got 0"):
        calibrate_from_recordings([], CUES)
    values = np.ones((5, *CUES.is_cue.shape), np.float32)
    with pytest.raises(InputError, match="different positions"):
        calibrate_from_cues(np.zeros((5, 2)), values, CUES, num_pieces=2)
    with pytest.raises(InputError, match="positions must be finite"):
        calibrate_from_cues(np.full((5, 2), np.nan), values, CUES)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.ones((1, 4000)), SAMPLE_RATE, "two channels"),
        (np.ones((3, 4000)), SAMPLE_RATE, "two channels"),
        (np.ones((2, 4000)) * [[1], [0]], SAMPLE_RATE, "silent at the right ear"),
        (np.ones((2, 4000)), SAMPLE_RATE // 2, "sample rate of 4000 Hz, below the 8000 Hz"),
        (np.ones((2, 100)), SAMPLE_RATE, "no whole window"),
    ],
)
def test_recordings_that_cannot_calibrate_are_refused(samples, rate, message):
    recordings = [(Recording(samples.astype(np.float32), rate), azimuth, 0.0) for azimuth in (-1.0, -0.5, 0.5, 1.0)]
    with pytest.raises(InputError, match=message):
        calibrate_from_recordings(recordings, CUES)
