import inspect
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from plane_waves import POSITIONS, SAMPLE_RATE, bursts, plane_waves

import vbss
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
from vbss.inference import Solution, Status
from vbss.models import LDACGMM
from vbss.pipeline import Sounds
from vbss.scenes import demo_scene
from vbss.separation import analysis, localize, separate, whole
from vbss.separation.doubts import doubtful_number, too_many_sources

WINDOW, HOP = 0.08, 0.02  # s; long enough for a start of its own


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

    def init(steering_vectors, num_sources, *, has_noise, loading):
        given.update(num_sources=num_sources)
        return steering_vectors

    def fit(model, data, algorithm, *, key, start, max_steps, progress):
        given.update(zip(("data", "is_observed"), data, strict=True))
        given.update(model=model, start=start, max_steps=max_steps, progress=progress)
        window_length = 2 * (len(data[0]) - 1)
        stft = STFT(window_length, window_length // 4, SAMPLE_RATE)
        images = stft.forward(jnp.asarray(given["images"]))
        truth = jnp.swapaxes(jnp.abs(images[:, 0]), 1, 2)
        source = jnp.moveaxis(truth == truth.max(0, keepdims=True), 0, -1).astype(data[0].real.dtype)
        direction = jnp.eye(72, dtype=source.dtype)[jnp.asarray([12, 36])]
        return KnownSolution(source, direction)

    # What is traced once would keep the first test's stand-in.
    for traced in ("_analysed", "_probabilities"):
        monkeypatch.setattr(analysis, traced, inspect.unwrap(getattr(analysis, traced)))
    stand_in = type("StandIn", (LDACGMM,), {"init": staticmethod(init)})
    pipeline = vbss.Pipeline(stand_in, vbss.Wiener())
    monkeypatch.setattr(vbss.Settings, "pipeline", property(lambda _: pipeline))
    monkeypatch.setattr(analysis, "_short_start", lambda *_: {"start": jnp.ones(())})
    monkeypatch.setattr(analysis, "fit", fit)
    return given


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_gets_the_normalized_spectrogram_and_its_masks_make_the_sources(known_masks, dtype):
    images, mixture = recording(dtype)
    known_masks["images"] = images
    separation = separate(mixture, POSITIONS, 2, max_steps=7, progress=print, precision=dtype, window=WINDOW, hop=HOP)

    stft = STFT.init(SAMPLE_RATE, WINDOW, HOP)
    spectrogram = np.asarray(stft.forward(jnp.asarray(mixture.samples))).T  # frequencies, frames, microphones
    active = np.asarray(active_frames(jnp.asarray(spectrogram.swapaxes(0, 1))))
    assert 0.5 < active.mean() <= 1
    np.testing.assert_array_equal(known_masks["is_observed"], np.broadcast_to(active, spectrogram.shape[:2]))
    whitening = np.asarray(diffuse_whitening(POSITIONS, stft.frequencies))
    white = np.einsum("fmn,ftn->ftm", whitening, spectrogram)
    norm = np.linalg.norm(white, axis=-1, keepdims=True)
    # Rounding is relative to the frame's largest bin, of which the transform and the whitening may leave less.
    largest = np.linalg.norm(spectrogram, axis=-1).max(0)[None, :, None]
    scale = np.linalg.norm(whitening, 2, axis=(1, 2))[:, None, None] * largest
    assert np.all(np.abs(np.asarray(known_masks["data"]) - white / norm) <= 8 * np.finfo(dtype).eps * scale / norm)
    assert known_masks["data"].dtype == known_masks["model"].dtype == np.result_type(dtype, np.complex64)
    expected = steering_vectors(POSITIONS, azimuth_grid(72), stft.frequencies)
    expected = np.einsum("fmn,fdn->fdm", whitening, expected)
    np.testing.assert_allclose(known_masks["model"], expected, atol=1e-5)
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
    assert list(separation.seconds) == ["transform", "start", "mixture model", "filter"]
    assert all(seconds > 0 for seconds in separation.seconds.values())


def test_sources_are_as_heard_at_the_reference(known_masks):
    images, mixture = recording()
    known_masks["images"] = images
    separation = separate(mixture, POSITIONS, 2, reference_microphone=2, window=WINDOW, hop=HOP)
    error = np.sum((separation.sources - images[:, 2]) ** 2, 1) / np.sum(images[:, 2] ** 2, 1)
    assert np.all(error < 0.01)


def test_sources_as_all_channels_hear_them(known_masks):
    images, mixture = recording()
    known_masks["images"] = images
    samples = mixture.samples.copy()
    samples[1] = 0
    found = separate(Recording(samples, SAMPLE_RATE), POSITIONS, 2, reference_microphone=3, all_channels=True)
    assert found.images is not None and found.images.shape == (2, *samples.shape)
    np.testing.assert_array_equal(found.images[:, 3], found.sources)
    np.testing.assert_array_equal(found.images[:, 1], 0)
    error = np.sum((found.images - images) ** 2, -1) / np.sum(images**2, -1)
    assert np.all(error[:, [0, 2, 3]] < 0.02)


def test_two_plane_waves_are_separated_and_located():
    azimuths = np.array([np.pi / 3, np.pi])
    images, mixture = recording("float32", azimuths)
    steps = []
    separation = separate(mixture, POSITIONS, 2, progress=lambda step, *_: steps.append(step))

    assert list(separation.solutions) == ["mixture model", "sum model"]
    assert list(separation.seconds) == ["transform", "start", "mixture model", "sum model", "filter"]
    for solution, most in ((separation.solution, 30), (separation.sum_solution, 60)):
        assert solution.status.name in ("converged", "max_steps")
        assert solution.num_steps in steps and solution.num_steps <= most
        assert np.all(np.diff(solution.elbo) > -1e-4 * abs(solution.elbo[-1]))
    assert steps[-1] == separation.sum_solution.num_steps
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
        ({"hop": 0.2}, "hop"),
        ({"num_directions": 0}, "num_directions"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_sum_steps": 0}, "max_sum_steps"),
        ({"num_components": 0}, "num_components"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed must be a whole number, from 0 to 4294967295"),
        ({"loading": -1.0}, "loading must be a number, 0 or more, got -1.0"),
        ({"loading": float("nan")}, "loading"),
        ({"loading": 0.0}, "loading must be positive"),
        ({"model": "rhubarb"}, "model must be one of cgmm, .*, cacgmm\\+fastmnmf, got 'rhubarb'"),
        ({"algorithm": "rhubarb"}, "algorithm must be one of em, em-derived, got 'rhubarb'"),
        ({"precision": "float16"}, "precision must be one of float32, float64, got 'float16'"),
        ({"window": 1e9}, "at least one window"),
        ({"window": float("inf")}, "at least one window"),
        ({"microphone_positions": np.zeros((40000, 3))}, "40000 microphones, but recording has 4 channels"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_any_computation(monkeypatch, change, message):
    for stage in ("_analysed", "fit"):
        monkeypatch.setattr(analysis, stage, None)
    arguments = {"microphone_positions": POSITIONS, "num_sources": 2} | change
    with pytest.raises(InputError, match=message):
        separate(recording()[1], **arguments)


def test_equal_channels_are_refused(monkeypatch):
    monkeypatch.setattr(analysis, "_analysed", None)
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
    expected = separate(mixture, POSITIONS, np.int64(2), reference_microphone=np.int32(0), precision=dtype)
    samples = mixture.samples * np.asarray(level, dtype)
    scaled = separate(Recording(samples, SAMPLE_RATE), POSITIONS, 2, precision=dtype)
    assert scaled.sources.dtype == dtype
    error = np.abs(scaled.sources / np.asarray(level, dtype) - expected.sources).max()
    assert error < 1e-4 * np.abs(expected.sources).max()
    np.testing.assert_allclose(scaled.energy_shares, expected.energy_shares, atol=1e-4)


def test_silent_sources_share_alike(known_masks, monkeypatch):
    images, mixture = recording()
    known_masks["images"] = images
    monkeypatch.setattr(whole, "_samples", lambda *_: jnp.zeros((2, 1, 16000)))
    np.testing.assert_array_equal(separate(mixture, POSITIONS, 2).energy_shares, [0.5, 0.5])


@pytest.mark.parametrize("azimuths", [(np.pi / 3, np.pi), (np.pi, np.pi / 3)])
def test_sources_come_in_the_order_of_their_directions(known_masks, monkeypatch, azimuths):
    images, mixture = recording("float64", azimuths)
    known_masks["images"] = images
    places = [round(azimuth / np.radians(5)) for azimuth in azimuths]
    fit = analysis.fit

    def placed(*arguments, **options):
        solution = fit(*arguments, **options)
        source = solution.posterior["source"].probs
        return KnownSolution(source, jnp.eye(72, dtype=source.dtype)[jnp.asarray(places)])

    monkeypatch.setattr(analysis, "fit", placed)
    separation = separate(mixture, POSITIONS, 2)
    np.testing.assert_allclose(separation.directions, [np.pi / 3, np.pi])
    np.testing.assert_array_equal(separation.classes, np.argsort(azimuths))
    truth = images[np.argsort(azimuths), 0]
    error = np.sum((separation.sources - truth) ** 2, 1) / np.sum(truth**2, 1)
    assert np.all(error < 0.02)
    np.testing.assert_array_equal(separation.direction_posterior.argmax(1), np.sort(places))


def test_where_the_sum_model_fails_the_mixture_models_sources_are_given(known_masks, monkeypatch):
    class Failing(vbss.SumModel):
        def __call__(self, analysis, masks, *, key, progress=None):
            solution = KnownSolution(masks, masks)
            object.__setattr__(solution, "status", Status.nonfinite)
            spectrograms = jnp.full((2, 1, *analysis.mixture.shape[:2]), jnp.nan, analysis.mixture.dtype)
            return Sounds(spectrograms, solution)

    images, mixture = recording()
    known_masks["images"] = images
    expected = separate(mixture, POSITIONS, 2)
    pipeline = vbss.Pipeline(vbss.Settings().pipeline.mixture_model, Failing())
    monkeypatch.setattr(vbss.Settings, "pipeline", property(lambda _: pipeline))
    separation = separate(mixture, POSITIONS, 2)
    np.testing.assert_array_equal(separation.sources, expected.sources)
    assert separation.sum_solution.status is Status.nonfinite
    assert separation.warnings[-2:] == (
        Status.nonfinite.explanation,
        "the sources are those of the mixture model, as the sum model failed.",
    )


def test_a_dead_channel_is_left_out(known_masks):
    images, mixture = recording()
    known_masks["images"] = images
    samples = mixture.samples.copy()
    samples[2] = 0
    separation = separate(Recording(samples, SAMPLE_RATE), POSITIONS, 2, reference_microphone=3)
    assert known_masks["data"].shape[-1] == 3
    (warning,) = separation.warnings
    assert warning.startswith("channel 2 (counted from 0) is silent")
    error = np.sum((separation.sources - images[:, 3]) ** 2, 1) / np.sum(images[:, 3] ** 2, 1)
    assert np.all(error < 0.02)


def test_doubtful_results_are_told(monkeypatch):
    def fit(model, data, *_, **options):
        num_frequencies, num_frames = data[0].shape[:2]
        source = jnp.full((num_frequencies, num_frames, 3), 1 / 3)
        direction = jnp.asarray([[0, 0, 1.0, 0], [0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]])
        solution = KnownSolution(source, direction)
        object.__setattr__(solution, "status", Status.bound_decreased)
        return solution

    monkeypatch.setattr(analysis, "fit", fit)
    monkeypatch.setattr(analysis, "_probabilities", inspect.unwrap(analysis._probabilities))
    line = read_microphone_positions("linear:4:0.03")
    in_line, fell, posterior, shared = localize(recording()[1], line, 3, num_directions=4).warnings
    assert "stand in a line" in in_line
    assert fell == Status.bound_decreased.explanation
    assert "direction of source 1 is uncertain" in posterior and "0.40" in posterior
    assert "sources 2 and 3 share one direction" in shared


def test_localize_finds_what_separate_finds():
    _, mixture = recording("float32")
    localization, separation = localize(mixture, POSITIONS, 2), separate(mixture, POSITIONS, 2, model="cgmm")
    np.testing.assert_array_equal(localization.direction_posterior, separation.direction_posterior)
    np.testing.assert_array_equal(localization.masks, separation.masks)
    assert not hasattr(localization, "sources") and list(localization.seconds) == [
        "transform",
        "start",
        "mixture model",
    ]


@pytest.mark.parametrize(("chosen", "level", "expected"), [(None, 0.3, True), (None, 0.0, False), (False, 0.3, False)])
def test_a_noisy_recording_gets_a_class_of_noise(chosen, level, expected):
    scene = demo_scene(seconds=2.0)
    noise = level * scene.mixture.std() * np.random.default_rng(1).standard_normal(scene.mixture.shape)
    mixture = Recording((scene.mixture + noise).astype(np.float32), scene.sample_rate)
    pipeline = vbss.Pipeline(output=vbss.Wiener(), has_noise=chosen)
    found = localize(mixture, scene.microphone_positions, 2, model=pipeline, max_steps=5)
    assert found.solution.model.has_noise is expected
    assert found.masks.shape[-1] == 2 and sorted(found.classes) == [0, 1]
    total = found.masks.sum(-1)
    assert np.median(total) < 0.9 if expected else np.all(np.abs(total - 1) < 1e-5)


def test_precisions_agree_at_the_same_loading():
    _, mixture = recording("float32")
    single, double = (
        separate(mixture, POSITIONS, 2, precision=precision, model="cgmm") for precision in ("float32", "float64")
    )
    assert (single.masks.dtype, double.masks.dtype) == (np.float32, np.float64)
    assert single.solution.elbo.dtype == np.float32 and double.solution.elbo.dtype == np.float64
    assert single.sources.dtype == double.sources.dtype == np.float32  # the recording's
    difference = np.sum((single.sources - double.sources) ** 2) / np.sum(double.sources**2)
    assert 10 * np.log10(difference) < -40


def test_sources_are_counted_if_so_asked():
    mixture = recording("float32")[1]
    localization = localize(mixture, POSITIONS, "auto", window=WINDOW, hop=HOP)
    assert len(localization.directions) == 2
    assert localization.number_probabilities[1] == localization.number_probabilities.max()
    assert list(localization.seconds) == ["count", "transform", "start", "mixture model"]
    with pytest.raises(InputError, match="num_sources must be one of auto, got 'many'"):
        localize(mixture, POSITIONS, "many")
    few = localize(mixture, POSITIONS, "auto", window=WINDOW, hop=HOP, num_directions=4, max_steps=1)
    assert few.number_probabilities.shape == (4,)


def test_an_uncertain_number_is_told():
    assert list(doubtful_number(np.array([0.2, 0.7, 0.1]))) == []
    (warning,) = doubtful_number(np.array([0.3, 0.3, 0.4]))
    assert warning == "the number of sources is uncertain: the most probable one, 3, has 0.40."
    (warning,) = doubtful_number(np.full(3, np.nan))
    assert warning == "the sources could not be counted, and are taken for one."


def test_sources_that_may_be_none_are_told():
    assert list(too_many_sources(np.array([0.4, 0.6]), 2)) == []
    (warning,) = too_many_sources(np.array([0.995, 0.005]), 4)
    assert warning.startswith("source 2 has less than 1 % of the energy: there may be fewer sources")
    (warning,) = too_many_sources(np.full(5, 0.2), 4)
    assert warning == "5 sources are more than the 4 microphones: they are separated less well."
