"""Separation where nothing is known of the array."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from plane_waves import POSITIONS, SAMPLE_RATE, bursts, plane_waves

import vbss
from vbss.audio import STFT, Recording
from vbss.errors import InputError
from vbss.models import CACGMM, LocalGaussianNMF
from vbss.separation import localize, separate

QUICK = {"max_steps": 10, "window": 0.064, "hop": 0.032}
LEVELS = np.array([[0.5], [1.0]])


@pytest.fixture(scope="module")
def mixture():
    """The images of a faint source and of a loud one, and their mixture in a little noise."""
    images = plane_waves(LEVELS * bursts(), np.array([np.pi / 3, np.pi]))
    noise = 1e-3 * np.random.default_rng(1).standard_normal(images.shape[1:])
    return images, Recording((images.sum(0) + noise).astype(np.float32), SAMPLE_RATE)


@pytest.fixture(scope="module")
def separation(mixture):
    return separate(mixture[1], None, 2, reference_microphone=1, num_components=4, max_sum_steps=20, **QUICK)


def test_sources_come_in_the_order_of_their_energy(mixture, separation):
    truth = mixture[0][::-1, 1]
    error = np.sum((separation.sources - truth) ** 2, 1) / np.sum(truth**2, 1)
    assert np.all(-10 * np.log10(error) > 10)
    assert separation.energy_shares[0] > 0.7 > 0.3 > separation.energy_shares[1]
    assert sorted(separation.classes) == [0, 1]
    stft = STFT.init(SAMPLE_RATE, QUICK["window"], QUICK["hop"])
    spectrogram = np.asarray(stft.forward(jnp.asarray(mixture[1].samples[1])))
    energies = np.einsum("tf,tfk->k", np.abs(spectrogram) ** 2, separation.masks)
    assert energies[0] > 2 * energies[1]  # masks are in the order of the sounds


def test_there_are_no_directions(separation):
    assert separation.azimuths is separation.directions is separation.direction_posterior is None
    assert separation.settings.model == "cacgmm+nmf"
    models = [type(solution.model) for solution in separation.solutions.values()]
    assert models == [CACGMM, LocalGaussianNMF]
    assert not separation.solution.model.has_noise
    assert list(separation.seconds) == ["transform", "start", "mixture model", "sum model", "filter"]
    assert np.all(separation.expected_sdr > 5)


def test_a_class_of_noise_is_left_out_of_what_is_found(mixture):
    pipeline = vbss.Pipeline(CACGMM, vbss.Wiener(), has_noise=True)
    found = separate(mixture[1], None, 2, model=pipeline, **QUICK)
    assert found.solution.model.has_noise
    assert found.masks.shape[-1] == len(found.sources) == 2 and found.masks.sum(-1).min() < 0.5


def test_the_array_counts_for_nothing(mixture):
    found = [separate(mixture[1], positions, 2, model="cacgmm", **QUICK).sources for positions in (None, POSITIONS)]
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("model", ["cgmm", "cgmm+nmf"])
def test_models_of_directions_need_the_array(mixture, model):
    with pytest.raises(InputError, match=f"microphone_positions must be given for '{model}'".replace("+", "\\+")):
        separate(mixture[1], None, 2, model=model)


def test_what_only_directions_tell_is_refused(mixture):
    with pytest.raises(InputError, match="microphone_positions must be given for directions"):
        inspect.unwrap(localize)(mixture[1], None, 2)  # without the annotations, which are checked in tests only
    with pytest.raises(InputError, match="model must be one of cgmm, .* for directions, got 'cacgmm'"):
        localize(mixture[1], POSITIONS, 2, model="cacgmm")
    with pytest.raises(InputError, match="num_sources must be a number where the microphones' places are not known"):
        separate(mixture[1], None, "auto")
