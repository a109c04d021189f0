"""A recording of two ears at once: positions, masks and sounds; what does not matter, and what is refused."""

import dataclasses
import inspect

import numpy as np
import pytest
from two_voices import AZIMUTHS, SAMPLE_RATE

import vbss
from vbss.audio import Recording, resample
from vbss.binaural import BinauralSettings, localize_binaural, separate_binaural
from vbss.errors import InputError
from vbss.inference import Status
from vbss.metrics import signal_to_distortion_ratio

SMALL = {"num_components": 3, "max_sum_steps": 6}


@pytest.fixture(scope="module")
def by_vessl(recording, calibration):
    return separate_binaural(recording, 2, calibration, **SMALL)


@pytest.fixture(scope="module")
def by_messl(recording):
    return separate_binaural(recording, 2, **SMALL)


def better_by(images, separation, recording):
    """dB by which the sources are better than the mixture, at the left ear, in order."""
    after, _ = signal_to_distortion_ratio(images[:, 0], separation.images[:, 0])
    before, _ = signal_to_distortion_ratio(images[:, 0], np.stack([recording.samples[0]] * 2))
    return after - before


def check(separation, images, recording):
    assert separation.images.shape == images.shape and separation.images.dtype == recording.samples.dtype
    assert separation.sample_rate == recording.sample_rate
    assert list(separation.azimuths) == sorted(separation.azimuths, reverse=True)  # from the left to the right
    assert separation.masks.min() >= 0 and separation.masks.sum(-1).max() <= 1 + 1e-5
    rest = recording.samples - separation.images.sum(0)
    assert np.square(rest).mean() < 0.02 * np.square(recording.samples).mean()
    np.testing.assert_allclose(separation.energy_shares.sum(), 1)
    np.testing.assert_allclose(separation.energy_shares, 0.5, atol=0.15)
    assert (better_by(images, separation, recording) > 6).all()
    assert set(separation.solutions) == {"cue model", "sum model"} and separation.expected_sdr.shape == (2,)
    assert list(separation.seconds) == ["cues", "cue model", "sum model", "filter"]
    assert separation.warnings == ()


def test_separation_with_a_calibration(by_vessl, images, recording):
    check(by_vessl, images, recording)
    assert by_vessl.model == "vessl+nmf"
    np.testing.assert_allclose(np.degrees(by_vessl.azimuths), AZIMUTHS, atol=4)
    assert by_vessl.elevations is None and by_vessl.delays is None and by_vessl.delay_probs is None
    np.testing.assert_allclose(by_vessl.positions.peak[:, 0], by_vessl.azimuths)


def test_separation_without_a_calibration(by_messl, images, recording):
    check(by_messl, images, recording)
    assert by_messl.model == "messl+nmf" and by_messl.positions is None and by_messl.elevations is None
    np.testing.assert_allclose(np.degrees(by_messl.azimuths), AZIMUTHS, atol=10)
    assert by_messl.delays[0] > 0 > by_messl.delays[1]
    np.testing.assert_allclose(by_messl.delay_probs @ by_messl.delay_grid, by_messl.delays, atol=1e-9)


def test_localisation_is_the_first_half(by_vessl, recording, calibration):
    located = localize_binaural(recording, 2, calibration, **SMALL)
    np.testing.assert_array_equal(located.azimuths, by_vessl.azimuths)
    np.testing.assert_array_equal(located.masks, by_vessl.masks)
    assert set(located.solutions) == {"cue model"} and list(located.seconds) == ["cues", "cue model"]


@pytest.mark.parametrize("model", ["vessl", "messl"])
def test_masks_alone(recording, calibration, images, model):
    separation = separate_binaural(recording, 2, calibration, model=model)
    assert separation.model == model and separation.sum_solution is None and separation.expected_sdr is None
    assert (better_by(images, separation, recording) > 6).all()
    if model == "vessl":  # without a class of what belongs to no source
        np.testing.assert_allclose(separation.images.sum(0), recording.samples, atol=1e-5)


@pytest.mark.parametrize("gain", [1e-12, 1e12])
def test_the_level_does_not_matter(by_vessl, recording, calibration, gain):
    scaled = Recording((gain * recording.samples).astype(np.float32), SAMPLE_RATE)
    separation = separate_binaural(scaled, 2, calibration, **SMALL)
    np.testing.assert_allclose(separation.azimuths, by_vessl.azimuths, atol=1e-3)
    scale = np.abs(recording.samples).max()
    np.testing.assert_allclose(separation.images / np.float32(gain), by_vessl.images, atol=1e-2 * scale)
    np.testing.assert_allclose(separation.energy_shares, by_vessl.energy_shares, atol=1e-3)


@pytest.mark.parametrize("gain", [1.0, 1e-200, 1e200])
def test_double_precision_comes_back_as_such(by_messl, recording, gain):
    double = Recording(gain * recording.samples.astype(np.float64), SAMPLE_RATE)
    separation = separate_binaural(double, 2, **SMALL)
    assert separation.images.dtype == np.float64
    scale = np.abs(recording.samples).max()
    np.testing.assert_allclose(separation.images / gain, by_messl.images, atol=1e-2 * scale)
    np.testing.assert_allclose(separation.energy_shares, by_messl.energy_shares, atol=1e-3)


def test_a_higher_rate_comes_back_at_its_own(by_vessl, recording, calibration):
    rate = 11025
    higher = resample(recording, rate)
    higher = dataclasses.replace(higher, samples=higher.samples[:, : rate * 7999 // 8000])
    separation = separate_binaural(higher, 2, calibration, model="vessl")
    assert separation.sample_rate == rate and separation.images.shape == (2, *higher.samples.shape)
    assert separation.cues.sample_rate == SAMPLE_RATE
    np.testing.assert_allclose(np.degrees(separation.azimuths), np.degrees(by_vessl.azimuths), atol=3)
    rest = higher.samples - separation.images.sum(0)
    assert np.square(rest[:, 200:-200]).mean() < 0.01 * np.square(higher.samples).mean()


def test_the_head_turned_round_turns_the_sources_round(by_messl, recording):
    turned = Recording(np.ascontiguousarray(recording.samples[::-1]), SAMPLE_RATE)
    located = localize_binaural(turned, 2)
    np.testing.assert_allclose(located.azimuths, -by_messl.azimuths[::-1], atol=0.1)


def test_the_same_seed_gives_the_same_sounds(by_vessl, recording, calibration):
    again = separate_binaural(recording, 2, calibration, **SMALL)
    np.testing.assert_array_equal(again.images, by_vessl.images)


def test_a_file_keeps_a_result(by_vessl, by_messl, tmp_path):
    for result in (by_vessl, by_messl):
        vbss.save(tmp_path / "result", result)
        again = vbss.load(tmp_path / "result")
        np.testing.assert_array_equal(again.images, result.images)
        assert again.settings == result.settings and again.cues == result.cues
        assert again.solution.status is result.solution.status


def test_a_recording_of_one_window(recording, calibration):
    for model, length in (("vessl", 256), ("messl", 512)):
        short = samples_of(recording, lambda x, end=3000 + length: x[:, 3000:end])
        separation = separate_binaural(short, 2, calibration, model=model, share=1.0, margin=0.0)
        assert np.isfinite(separation.images).all() and separation.images.shape == (2, 2, length)


@pytest.mark.parametrize("num_sources", [1, 3])
def test_other_numbers_of_sources(recording, num_sources):
    located = localize_binaural(recording, num_sources, max_steps=4)
    assert located.azimuths.shape == (num_sources,) and located.masks.shape[-1] == num_sources


def test_sources_at_one_place_are_doubted(images, calibration):
    alone = Recording(images[0], SAMPLE_RATE)
    located = localize_binaural(alone, 2, calibration)
    assert located.warnings and "may be one source" in located.warnings[0]


def test_an_inference_that_failed_gives_no_sum_model(recording, monkeypatch):
    from vbss.binaural import whole

    infer = whole.infer_messl

    def failing(*arguments, **options):
        found = infer(*arguments, **options)
        return found._replace(status=Status.nonfinite, masks=np.nan * found.masks)

    monkeypatch.setattr(whole, "infer_messl", failing)
    separation = separate_binaural(recording, 2, max_steps=2, **SMALL)
    assert separation.sum_solution is None and np.isnan(separation.images).all()
    assert separation.solution.status is Status.nonfinite and len(separation.warnings) == 1


def test_a_sum_model_that_failed_leaves_the_masked_mixture(recording, monkeypatch):
    from vbss import pipeline

    fit = pipeline.fit

    def failing(*arguments, **options):
        return dataclasses.replace(fit(*arguments, **options), status=Status.nonfinite)

    monkeypatch.setattr(pipeline, "fit", failing)
    separation = separate_binaural(recording, 2, **SMALL)
    assert separation.expected_sdr is None and np.isfinite(separation.images).all()
    assert "masked mixture" in separation.warnings[-1]


def samples_of(recording, change):
    return Recording(np.ascontiguousarray(change(recording.samples)), SAMPLE_RATE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:1], "two channels"),
        (lambda x: np.concatenate([x, x[:1]]), "two channels"),
        (lambda x: x * np.array([[1], [0]], np.float32), "silent at the right ear"),
        (lambda x: x * np.array([[0], [1]], np.float32), "silent at the left ear"),
        (lambda x: x[:, :200], "must last 0.032 s or more, got 200 samples"),
        (lambda x: x * np.array([[1], [1e-30]], np.float32), "no bin that is above the noise"),
    ],
)
def test_recordings_that_are_none_of_two_ears_are_refused(recording, calibration, change, message):
    with pytest.raises(InputError, match=message):
        separate_binaural(samples_of(recording, change), 2, calibration, model="vessl")


def test_stationary_noise_is_refused_where_nothing_counts(calibration):
    noise = Recording(0.1 * np.random.default_rng(0).standard_normal((2, SAMPLE_RATE)), SAMPLE_RATE)
    with pytest.raises(InputError, match="no bin that is above the noise at both ears"):
        localize_binaural(noise, 2, calibration, margin=30.0)


@pytest.mark.parametrize(
    ("num_sources", "options", "message"),
    [
        (0, {}, "num_sources must be a whole number, from 1 to 8, got 0"),
        (9, {}, "num_sources must be a whole number, from 1 to 8, got 9"),
        (True, {}, "num_sources"),
        ("auto", {}, "num_sources"),
        (7, {}, "must not exceed the 6 pieces"),
        (2, {"calibration": None, "model": "vessl"}, "calibration must be given for the model 'vessl'"),
        (2, {"calibration": None, "model": "vessl+nmf"}, "calibration must be given"),
        (2, {"model": "cgmm"}, "model must be one of vessl"),
        (2, {"vessl": "worst"}, "vessl must be one of best, paper"),
        (2, {"share": 0.0}, "share"),
        (2, {"share": 1.5}, "share must be at most 1"),
        (2, {"margin": -1.0}, "margin"),
        (2, {"margin": float("nan")}, "margin"),
        (2, {"pseudo_count": 0.0}, "pseudo_count"),
        (2, {"max_steps": 0}, "max_steps"),
        (2, {"num_components": 0}, "num_components"),
        (2, {"max_sum_steps": 0}, "max_sum_steps"),
        (2, {"seed": -1}, "seed"),
        (2, {"seed": 2**32}, "seed"),
    ],
)
def test_impossible_arguments_are_refused(recording, calibration, num_sources, options, message):
    unchecked = inspect.unwrap(separate_binaural)
    arguments = {"calibration": calibration} | options
    with pytest.raises((InputError, TypeError), match=message):
        unchecked(recording, num_sources, **arguments)


def test_a_rate_below_the_calibrations_is_refused(recording, calibration):
    with pytest.raises(InputError, match="sample rate of 4000 Hz, below the 8000 Hz"):
        separate_binaural(resample(recording, 4000), 2, calibration)


def test_rooms_have_settings_of_their_own():
    assert BinauralSettings(reverberant=True).preset.outlier_probability is None
    assert BinauralSettings().preset.outlier_probability is not None
    assert BinauralSettings(reverberant=True, vessl="paper").preset is BinauralSettings(vessl="paper").preset


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * np.array([[1], [1e-30]], np.float32),  # an ear next to silent
        lambda x: np.stack([x[0], x[0]]),  # the same at both ears
        lambda x: x + np.float32(0.5),  # an offset
        lambda x: np.clip(x, -0.01, 0.01),
        lambda x: np.where(np.arange(x.shape[1]) < 4000, x, 0).astype(np.float32),  # silence
        lambda x: np.eye(2, x.shape[1], 300, dtype=np.float32) + np.eye(2, x.shape[1], 301, dtype=np.float32),  # clicks
    ],
)
def test_odd_recordings_are_handled(recording, change):
    odd = samples_of(recording, change)
    separation = separate_binaural(odd, 2, **SMALL | {"max_sum_steps": 2})
    assert np.isfinite(separation.images).all() and separation.images.shape == (2, *odd.samples.shape)
    assert np.isfinite(separation.azimuths).all() and np.isfinite(separation.energy_shares).all()
