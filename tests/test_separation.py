import inspect
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import vbss.separation
from vbss.audio import (
    STFT,
    Recording,
    active_frames,
    azimuth_grid,
    diffuse_whitening,
    read_microphone_positions,
    steering_vectors,
)
from vbss.errors import InputError
from vbss.inference import Solution
from vbss.separation import separate

SAMPLE_RATE = 8000
POSITIONS = read_microphone_positions("circular:4:0.08")


def plane_waves(signals, azimuths):
    """Each signal as a periodic plane wave heard by the microphones, (sources, microphones, samples)."""
    num_samples = signals.shape[-1]
    omega = 2 * np.pi * np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    towards = np.stack([np.cos(azimuths), np.sin(azimuths), np.zeros(len(azimuths))])
    advance = (POSITIONS @ towards).T / 343.0
    spectra = np.fft.rfft(signals)[:, None] * np.exp(1j * omega * advance[..., None])
    return np.fft.irfft(spectra, num_samples)


def bursts(seconds=2.0, seed=0):
    """Two noises that take turns, as unlike speech as is needed to be quick, (sources, samples)."""
    rng = np.random.default_rng(seed)
    num_samples = int(seconds * SAMPLE_RATE)
    turns = np.repeat(rng.permuted(np.tile([[1.0], [0.0]], (1, 20)), axis=0), num_samples // 20, axis=1)
    return 0.1 * turns[:, :num_samples] * rng.standard_normal((2, num_samples))


def recording(dtype="float64", azimuths=(np.pi / 3, np.pi)):
    images = plane_waves(bursts(), np.array(azimuths))
    noise = 1e-3 * np.random.default_rng(1).standard_normal(images.shape[1:])
    return images, Recording((images.sum(0) + noise).astype(dtype), SAMPLE_RATE)


class KnownSolution(Solution):
    """A solution of given probabilities."""

    def __init__(self, source, direction):
        self.model = self.status = None
        self.posterior = {
            "source": SimpleNamespace(probs=source),
            "direction": SimpleNamespace(probs=direction),
        }
        self.elbo, self.num_steps = np.zeros(1), 0


@pytest.fixture
def known_masks(monkeypatch):
    """Inference replaced by the truth: a dict that gets what inference was given."""
    given = {}

    def init(steering_vectors, num_sources, *, loading):
        given.update(steering=steering_vectors, num_sources=num_sources)
        return "model"

    def fit(model, data, algorithm, *, key, max_steps, progress):
        given.update(data=data, model=model, max_steps=max_steps, progress=progress)
        stft = STFT.init(SAMPLE_RATE)
        images = stft.forward(jnp.asarray(given["images"]))
        active = active_frames(np.asarray(jnp.moveaxis(images.sum(0), 0, -1)))
        truth = jnp.swapaxes(jnp.abs(images[:, 0, active]), 1, 2)
        source = jnp.moveaxis(truth == truth.max(0, keepdims=True), 0, -1).astype(data.real.dtype)
        direction = jnp.eye(given["steering"].shape[1], dtype=source.dtype)[jnp.asarray([12, 36])]
        return KnownSolution(source, direction)

    monkeypatch.setattr(vbss.separation, "LDACGMM", SimpleNamespace(init=init))
    monkeypatch.setattr(vbss.separation, "fit", fit)
    return given


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_gets_the_normalized_spectrogram_and_its_masks_make_the_sources(known_masks, dtype):
    images, mixture = recording(dtype)
    known_masks["images"] = images
    separation = separate(mixture, POSITIONS, 2, max_steps=7, progress=print)

    stft = STFT.init(SAMPLE_RATE)
    spectrogram = np.asarray(stft.forward(jnp.asarray(mixture.samples))).T  # frequencies, frames, microphones
    active = active_frames(spectrogram.swapaxes(0, 1))
    assert 0.5 < active.mean() <= 1
    whitening = np.asarray(diffuse_whitening(POSITIONS, stft.frequencies))
    white = np.einsum("fmn,ftn->ftm", whitening, spectrogram[:, active])
    norm = np.linalg.norm(white, axis=-1, keepdims=True)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(known_masks["data"], white / norm, atol=tolerance)
    assert known_masks["data"].dtype == known_masks["steering"].dtype == np.result_type(dtype, np.complex64)
    expected = steering_vectors(POSITIONS, azimuth_grid(72), stft.frequencies)
    expected = np.einsum("fmn,fdn->fdm", whitening, expected)
    np.testing.assert_allclose(known_masks["steering"], expected, atol=1e-5)
    assert (known_masks["num_sources"], known_masks["max_steps"], known_masks["progress"]) == (2, 7, print)

    assert separation.sources.shape == (2, mixture.samples.shape[1]) and separation.sources.dtype == dtype
    assert separation.sample_rate == SAMPLE_RATE
    assert separation.masks.shape == (*spectrogram.shape[1::-1], 2)
    np.testing.assert_allclose(separation.masks.sum(-1), 1)
    np.testing.assert_allclose(separation.directions, [np.pi / 3, np.pi])
    error = np.sum((separation.sources - images[:, 0]) ** 2, 1) / np.sum(images[:, 0] ** 2, 1)
    assert np.all(error < 0.01)
    energies = np.sum(images[:, 0] ** 2, 1)
    np.testing.assert_allclose(separation.energy_shares, energies / energies.sum(), atol=0.01)
    np.testing.assert_allclose(separation.energy_shares.sum(), 1, rtol=1e-5)
    assert list(separation.seconds) == ["transform", "model", "inference", "filter"]
    assert all(seconds > 0 for seconds in separation.seconds.values())


def test_sources_are_as_heard_at_the_reference(known_masks):
    images, mixture = recording()
    known_masks["images"] = images
    separation = separate(mixture, POSITIONS, 2, reference_microphone=2)
    error = np.sum((separation.sources - images[:, 2]) ** 2, 1) / np.sum(images[:, 2] ** 2, 1)
    assert np.all(error < 0.01)


def test_two_plane_waves_are_separated_and_located():
    azimuths = np.array([np.pi / 3, np.pi])
    images, mixture = recording("float32", azimuths)
    steps = []
    separation = separate(mixture, POSITIONS, 2, progress=lambda step, *_: steps.append(step))

    assert separation.solution.status.name in ("converged", "max_steps")
    assert steps and separation.solution.num_steps == steps[-1] <= 30
    assert np.all(np.diff(separation.solution.elbo) > -1e-4 * abs(separation.solution.elbo[-1]))
    order = np.argsort(separation.directions)
    np.testing.assert_allclose(separation.directions[order], azimuths, atol=np.radians(5.1))
    np.testing.assert_allclose(separation.direction_posterior.sum(1), 1, rtol=1e-5)
    truth = images[:, 0]
    error = np.sum((separation.sources[order] - truth) ** 2, 1) / np.sum(truth**2, 1)
    assert np.all(-10 * np.log10(error) > 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"microphone_positions": POSITIONS[:3]}, "3 microphones, but recording has 4 channels"),
        ({"microphone_positions": POSITIONS * 1000 * 10}, "millimetres"),
        ({"microphone_positions": POSITIONS * 0}, "same place"),
        ({"num_sources": 0}, "num_sources"),
        ({"num_sources": 73}, "num_sources must be a whole number, from 1 to 72"),
        ({"reference_microphone": 4}, "reference_microphone must be a whole number, from 0 to 3"),
        ({"reference_microphone": -1}, "reference_microphone"),
        ({"window": 3.0}, "recording has 16000 samples"),
        ({"hop": 0.1}, "hop"),
        ({"num_directions": 0}, "num_directions"),
        ({"max_steps": 0}, "max_steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed must be a whole number, from 0 to 4294967295"),
        ({"window": 1e9}, "at least one window"),
        ({"window": float("inf")}, "at least one window"),
        ({"microphone_positions": np.zeros((40000, 3))}, "40000 microphones, but recording has 4 channels"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_any_computation(monkeypatch, change, message):
    for stage in ("_transform", "LDACGMM", "fit", "_filter"):
        monkeypatch.setattr(vbss.separation, stage, None)
    arguments = {"microphone_positions": POSITIONS, "num_sources": 2} | change
    with pytest.raises(InputError, match=message):
        separate(recording()[1], **arguments)


def test_equal_channels_are_refused(monkeypatch):
    monkeypatch.setattr(vbss.separation, "_transform", None)
    samples = recording()[1].samples.copy()
    samples[3] = samples[1]
    with pytest.raises(InputError, match="same sound in channels 1 and 3 "):
        separate(Recording(samples, SAMPLE_RATE), POSITIONS, 2)


def test_wrong_types_are_refused():
    unchecked = inspect.unwrap(separate)  # without the annotations, which are checked in tests only
    with pytest.raises(InputError, match="recording must be a vbss.audio.Recording, got ndarray"):
        unchecked(np.ones((4, 9)), POSITIONS, 2)
    with pytest.raises(InputError, match="microphone_positions must be an array of real numbers"):
        unchecked(recording()[1], "circular:4:0.08", 2)


@pytest.mark.parametrize(
    ("dtype", "level"), [("float32", 1e-30), ("float32", 1e30), ("float32", 1e-36), ("float64", 1e200)]
)
def test_the_level_does_not_matter(known_masks, dtype, level):
    images, mixture = recording(dtype)
    known_masks["images"] = images
    expected = separate(mixture, POSITIONS, np.int64(2), reference_microphone=np.int32(0))
    scaled = separate(Recording(mixture.samples * np.asarray(level, dtype), SAMPLE_RATE), POSITIONS, 2)
    assert scaled.sources.dtype == dtype
    error = np.abs(scaled.sources / np.asarray(level, dtype) - expected.sources).max()
    assert error < 1e-4 * np.abs(expected.sources).max()
    np.testing.assert_allclose(scaled.energy_shares, expected.energy_shares, atol=1e-4)


def test_silent_sources_share_alike(known_masks, monkeypatch):
    images, mixture = recording()
    known_masks["images"] = images
    monkeypatch.setattr(vbss.separation, "_filter", lambda *_: jnp.zeros((2, 16000)))
    np.testing.assert_array_equal(separate(mixture, POSITIONS, 2).energy_shares, [0.5, 0.5])


def test_a_dead_channel_is_refused(monkeypatch):
    monkeypatch.setattr(vbss.separation, "_transform", None)
    samples = recording()[1].samples.copy()
    samples[2] = 0
    with pytest.raises(InputError, match="silent in channel 2 "):
        separate(Recording(samples, SAMPLE_RATE), POSITIONS, 2)
