"""Counting sources: of plane waves in diffuse noise, whose number is known."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from plane_waves import POSITIONS, SAMPLE_RATE, bursts, plane_waves

from vbss.audio import STFT, azimuth_grid, diffuse_whitening, steering_vectors
from vbss.audio.diffuse import whitened
from vbss.audio.filters import normalize_bins
from vbss.counting import _number_probabilities, count_sources
from vbss.errors import InputError
from vbss.models import CACGMM, LDACGMM

NUM_DIRECTIONS = 36
AZIMUTHS = azimuth_grid(NUM_DIRECTIONS)
STFT_64 = STFT.init(SAMPLE_RATE, 0.064, 0.032)
PLACES = (3, 14, 24)


@pytest.fixture(scope="module")
def whitening():
    return diffuse_whitening(POSITIONS, STFT_64.frequencies)


@pytest.fixture(scope="module")
def model(whitening):
    steering = steering_vectors(POSITIONS, AZIMUTHS, STFT_64.frequencies)
    return LDACGMM.init(whitened(whitening, steering), 1)


def bins(whitening, num_sources):
    """Bins of so many sources, in noise that is the same in all directions."""
    places = AZIMUTHS[list(PLACES[:num_sources])]
    rng = np.random.default_rng(0)
    waves = plane_waves(bursts(1.5, num_sources=num_sources), places)
    diffuse = plane_waves(1e-3 * rng.standard_normal((NUM_DIRECTIONS, waves.shape[-1])), AZIMUTHS)
    spectrogram = STFT_64.forward(jnp.asarray(waves.sum(0) + diffuse.sum(0)))
    return normalize_bins(whitened(whitening, jnp.moveaxis(spectrogram, 0, -1).swapaxes(0, 1)))


@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_plane_waves_are_counted_and_located(model, whitening, num_sources):
    mixture = bins(whitening, num_sources)
    counted = count_sources(model, (mixture, None), max_sources=4)
    assert counted.num_sources == num_sources == 1 + np.argmax(counted.probabilities)
    assert counted.probabilities.shape == (4,) and counted.probabilities.sum() == pytest.approx(1)
    assert sorted(counted.directions[:num_sources]) == list(PLACES[:num_sources])
    assert np.all(np.diff(counted.evidence) <= 0)


@pytest.mark.parametrize("num_sources", [1, 2])
def test_classes_that_start_where_they_are_told_are_counted(model, whitening, num_sources):
    places = [30, *PLACES[:num_sources], 8]  # of a network that tells more apart than there are
    start = jnp.eye(NUM_DIRECTIONS)[jnp.array(places)]
    counted = count_sources(model, (bins(whitening, num_sources), None), start_directions=start)
    assert counted.num_sources == num_sources and len(counted.probabilities) == len(places)
    assert sorted(counted.classes[:num_sources]) == list(range(1, 1 + num_sources))
    assert counted.directions[:num_sources].tolist() == [places[number] for number in counted.classes[:num_sources]]


def test_bins_that_were_not_observed_say_nothing(model, whitening):
    mixture = bins(whitening, 2)
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, -10:].set(False)
    broken = mixture.at[:, -10:].set(mixture[:, :10])
    noisy = dataclasses.replace(model, has_noise=True)  # what classes the model has does not matter
    first, second = (count_sources(m, (x, is_observed), max_sources=4) for m, x in ((model, mixture), (noisy, broken)))
    np.testing.assert_allclose(first.evidence, second.evidence, rtol=1e-9)


def test_the_number_is_that_of_independent_classes():
    threshold = 8e-3  # of the evidence at which a class is as probably a source as not
    np.testing.assert_allclose(_number_probabilities(np.array([1.0, threshold, 0.0]), 3), [0.5, 0.5, 0])
    np.testing.assert_allclose(_number_probabilities(np.array([1.0, threshold, threshold]), 2), [0.25, 0.75])
    np.testing.assert_allclose(_number_probabilities(np.array([-1.0, -2.0]), 2), [1, 0])  # one there is
    assert np.isnan(_number_probabilities(np.array([1.0, np.nan]), 2)).all()


def test_bad_input_is_refused_by_name(model, whitening):
    mixture = bins(whitening, 1)
    with pytest.raises(InputError, match="model must be a vbss.models.LDACGMM, got CACGMM"):
        inspect.unwrap(count_sources)(CACGMM.init(2), (mixture, None))  # the annotations are checked in tests only
    for max_sources in (0, NUM_DIRECTIONS + 1):
        with pytest.raises(InputError, match="max_sources must be a whole number, from 1 to 36"):
            count_sources(model, (mixture, None), max_sources=max_sources)
    with pytest.raises(InputError, match="start_directions must be real of shape .classes, 36."):
        count_sources(model, (mixture, None), start_directions=jnp.eye(35)[:2])
    with pytest.raises(ValueError, match="silent"):
        count_sources(model, (0 * mixture, None))
