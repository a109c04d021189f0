import binaural_separation
import numpy as np
import pytest
import soundfile
from binaural_heads import (
    Calibrations,
    CalibrationSetting,
    calibration_directions,
    is_level,
    named_path,
    read_heads,
    thinned,
)
from binaural_quality import binaural_quality
from binaural_report import write_report
from binaural_separation import Experiment, fill_in
from binaural_systems import SYSTEMS, Found, ideally_masked, rows
from head_sets import SAMPLE_RATE, grid, rigid_responses
from records import Records

from vbss.scenes import LOW_VOICE, BinauralCondition, SpeechCorpus, random_binaural_scene, speech_like

CONDITION = BinauralCondition(num_sources=2, sample_rate=SAMPLE_RATE, seconds=1.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in range(2):
        (folder / f"speaker{speaker}").mkdir()
        soundfile.write(folder / f"speaker{speaker}" / "speech.wav", speech_like(LOW_VOICE, 7.0, 8000, speaker), 8000)
    return SpeechCorpus.read(folder)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    azimuths, elevations = grid(20, (-60, -30, 0, 30))
    file = tmp_path_factory.mktemp("heads") / "rigid.npz"
    responses = rigid_responses(azimuths, elevations)
    np.savez(file, azimuth_deg=azimuths, elevation_deg=elevations, ir=responses, fs=SAMPLE_RATE)
    return read_heads(file)


@pytest.fixture(scope="module")
def scene(corpus, heads):
    return random_binaural_scene(corpus, heads.split("test"), CONDITION)


def test_heads_are_in_front_and_calibrations_are_no_scenes(heads):
    assert np.abs(np.degrees(heads.azimuths)).max() <= 80 + 1e-6
    assert np.degrees(heads.elevations).min() >= -40
    calibration = calibration_directions(heads)
    assert not set(calibration.numbers) & (set(heads.split("test").numbers) | set(heads.split("dev").numbers))
    level = heads.take(np.abs(heads.elevations) < 1e-6)
    assert not is_level(calibration)
    assert is_level(calibration_directions(level, heads))
    vectors = thinned(heads, 25.0).vectors
    angles = np.degrees(np.arccos(np.clip(vectors @ vectors.T, -1, 1)))
    assert angles[~np.eye(len(vectors), dtype=bool)].min() >= 25 - 1e-4
    assert 4 < len(vectors) < len(heads)
    assert thinned(heads, 0.0) is heads


@pytest.mark.parametrize("text", ["path", "=path", "label=", "la/bel=path", "a@b=path"])
def test_a_named_path_needs_both(text):
    with pytest.raises(ValueError, match="LABEL=PATH"):
        named_path(text)
    assert named_path("label=a=b")[0] == "label"


def test_rows_of_calibrations(heads):
    names = ["vessl", "vessl+nmf", "messl", "mixture"]
    both = rows(names, heads, {"other": heads}, True, 2)
    assert [row.name for row in both] == ["vessl", "vessl@other", "vessl+nmf", "vessl+nmf@other", "messl", "mixture"]
    assert [row.name for row in rows(names, heads, {"other": heads}, False, 1)] == ["vessl@other", "messl"]
    assert both[0].identity != both[2].identity
    fewer = rows(["vessl"], heads.take(np.arange(20)), {}, True, 2)[0]
    assert fewer.identity != both[0].identity


def test_truth_is_perfect_in_any_order(scene):
    laterals = np.arcsin(np.sin(scene.azimuths) * np.cos(scene.elevations))
    found = Found(scene.azimuths[::-1], scene.elevations[::-1], laterals[::-1], scene.images[::-1])
    quality = binaural_quality(scene, found)
    for name in ("great_circle_errors", "azimuth_errors", "elevation_errors", "lateral_errors"):
        np.testing.assert_allclose(quality[name], 0, atol=1e-5)
    assert min(quality["sdr"]) > 60


def test_one_order_counts_for_both_ears(scene):
    exchanged = np.stack([scene.images[:, 0], scene.images[::-1, 1]], axis=1)
    assert max(binaural_quality(scene, Found(images=exchanged))["sdr"]) < 70  # each ear by itself: 120


def test_great_circle_of_elevations_that_are_not_sought(scene):
    shifted = Found(azimuths=scene.azimuths + np.radians(1))
    quality = binaural_quality(scene, shifted)
    assert "elevation_errors" not in quality
    assert "sdr" not in quality
    np.testing.assert_allclose(quality["azimuth_errors"], 1, rtol=1e-6)
    expected = np.degrees(np.arccos(np.cos(scene.elevations) * np.cos(np.radians(1))))
    np.testing.assert_allclose(quality["great_circle_errors"], expected, rtol=1e-6)


@pytest.mark.parametrize("mask", ["none", "binary", "ratio"])
def test_ideal_masks_add_up_to_the_mixture(scene, mask):
    found = ideally_masked(scene, mask)
    total = found.mean(0) if mask == "none" else found.sum(0)
    np.testing.assert_allclose(total, scene.mixture, atol=1e-4 * np.abs(scene.mixture).max())
    sdr = np.mean(binaural_quality(scene, Found(images=found))["sdr"])
    assert abs(sdr) < 3 if mask == "none" else sdr > 5


def test_growing_maps_have_directions_for_each_piece(heads, tmp_path):
    calibrations = Calibrations(tmp_path / "calibrations")
    setting = CalibrationSetting(phase=False, is_growing=True, most_pieces=4)
    learnt = calibrations.of(calibration_directions(heads), setting, SAMPLE_RATE, {"any": 1})
    assert [len(ppam.log_weights) for ppam in learnt.maps] == [1, 2, 4]
    assert not learnt.cues.phase


def test_what_is_finished_is_not_computed_again(corpus, heads, tmp_path, monkeypatch):
    records, calibrations = Records(tmp_path / "records"), Calibrations(tmp_path / "calibrations")
    chosen = rows(["vessl", "mixture"], heads, {}, True, 2)
    experiment = Experiment("rigid-2", heads.split("test"), CONDITION, chosen)
    fill_in(records, corpus, experiment, 1, calibrations)
    first = records.of("rigid-2", "vessl", chosen[0].identity)
    assert list(first) == [0]
    assert len(first[0]["azimuth_errors"]) == len(first[0]["elevation_errors"]) == len(first[0]["sdr"]) == 2
    assert first[0]["calibration_directions"] == len(heads.split("calibration"))
    assert first[0]["cpu_seconds"] > 0
    assert not first[0]["failed"]
    assert len(list(calibrations.folder.iterdir())) == 1

    def nothing(*arguments):
        raise AssertionError("nothing was left to do")

    with monkeypatch.context() as patch:
        patch.setattr(binaural_separation, "separate", nothing)
        fill_in(records, corpus, experiment, 1, calibrations)
        assert records.of("rigid-2", "vessl", chosen[0].identity) == first
        with pytest.raises(AssertionError, match="nothing was left"):
            fill_in(records, corpus, experiment, 2, calibrations)

    text = write_report(records, {"rigid-2": chosen, "rigid-3": chosen}, tmp_path)
    assert "### rigid-2" in text
    assert "### rigid-3" not in text
    assert f"| {SYSTEMS['mixture'].title} | 1 |" in text
    assert "VESSL minus" in text
    assert (tmp_path / "report.md").read_text() == text
    assert (tmp_path / "report.png").stat().st_size > 0


def test_what_is_not_finite_is_a_failure(heads, scene, monkeypatch):
    broken = Found(laterals=np.full(2, np.nan), images=np.full(scene.images.shape, np.nan), delays=np.zeros(2))
    monkeypatch.setattr(binaural_separation, "separate", lambda *arguments: broken)
    record = binaural_separation.measured(rows(["messl"], heads, {}, True, 2)[0], scene, None)
    assert record["failed"]
    assert np.isfinite(record["lateral_errors"]).all()
    assert np.abs(np.mean(record["sdr"])) < 3
    assert "azimuth_errors" not in record
