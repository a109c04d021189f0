"""`vbss simulate` in-process: the folder it writes, and that it can be stopped and resumed."""

import json
import os
import sys

import numpy as np
import pytest

from vbss.audio import read_microphone_positions, read_recording, write_recording
from vbss.cli import main
from vbss.scenes import HIGH_VOICE, LOW_VOICE, Condition, Speaker, SpeechCorpus, random_scene, speech_like


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    for name, voice in {"low": LOW_VOICE, "high": HIGH_VOICE, "middle": Speaker(150.0, 1.1, 4.7)}.items():
        (folder / name).mkdir()
        write_recording(folder / name / "x.flac", speech_like(voice, 2.5, 8000), 8000)
    (folder / "splits.csv").write_text("speaker,split\nlow,test\nhigh,test\nmiddle,train\n")
    return folder


@pytest.fixture
def simulate(speech, tmp_path):
    """Runs the command with 1 s of sound and returns the exit code."""

    def run(*options):
        return main(["simulate", str(speech), "--seconds", "1", "--out", str(tmp_path / "out"), *options])

    return run


def contents(folder):
    """Every file's text or samples; the bytes of a sound file hold the time of writing too."""
    return {
        str(file.relative_to(folder)): read_recording(file).samples.tolist()
        if file.suffix == ".wav"
        else file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_folder_holds_the_scenes(simulate, speech, tmp_path, capsys):
    assert simulate("--scenes", "2", "--noise", "20", "--split", "test", "--seed", "5") == 0
    out = tmp_path / "out"
    files = ["mixture.wav", "scene.json", "source_1.wav", "source_2.wav"]
    expected = {"microphones.txt", *(f"scene_00{index}/{file}" for index in range(2) for file in files)}
    assert set(contents(out)) == expected
    streams = capsys.readouterr()
    assert streams.out == f"{out}: 2 scenes of 2 sources, drawn from 2 speakers\n" and streams.err == ""

    scene = random_scene(SpeechCorpus.read(speech, "test"), Condition(seconds=1.0, sensor_noise=20.0), seed=5, index=1)
    mixture = read_recording(out / "scene_001" / "mixture.wav")
    np.testing.assert_array_equal(mixture.samples, scene.mixture)
    assert mixture.sample_rate == 8000
    for number, image in enumerate(scene.images, 1):
        np.testing.assert_array_equal(read_recording(out / f"scene_001/source_{number}.wav").samples, image[:1])
    positions = read_microphone_positions(out / "microphones.txt")
    np.testing.assert_allclose(positions, scene.microphone_positions, atol=1e-6)

    told = json.loads((out / "scene_001" / "scene.json").read_text())
    assert [source.pop("image") for source in told["sources"]] == ["source_1.wav", "source_2.wav"]
    assert told.pop("schema_version") == 1 and told.pop("vbss_version")
    assert told == scene.description
    assert {source["speaker"] for source in told["sources"]} == {"low", "high"}


def test_the_options_reach_the_condition(simulate, tmp_path, capsys):
    options = "--sources 3 --sample-rate 16000 --array linear:3:0.1 --diffuse-noise 10 --all-channels --quiet".split()
    assert simulate(*options) == 0
    scene = tmp_path / "out" / "scene_000"
    mixture = read_recording(scene / "mixture.wav")
    images = [read_recording(scene / f"source_{number}.wav") for number in (1, 2, 3)]
    assert {sound.samples.shape for sound in (mixture, *images)} == {(3, 16000)}
    assert {sound.sample_rate for sound in (mixture, *images)} == {16000}
    clean = np.sum([image.samples for image in images], axis=0, dtype=float)
    ratio = np.mean(clean**2) / np.mean((mixture.samples - clean) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(10.0, abs=0.01)
    assert "".join(capsys.readouterr()) == ""


def test_measured_rooms(simulate, tmp_path):
    responses = tmp_path / "responses"
    responses.mkdir()
    rows = ["file,azimuth_degrees,room"]
    for azimuth in (0, 90):
        write_recording(responses / f"{azimuth}.wav", np.random.default_rng(azimuth).uniform(-1, 1, (2, 9)), 8000)
        rows += [f"{azimuth}.wav,{azimuth},hall", f"{azimuth}.wav,{azimuth},cell"]
    (responses / "responses.csv").write_text("\n".join(rows))
    (responses / "microphones.txt").write_text("0.1 0 0\n-0.1 0 0\n")
    assert simulate("--responses", str(responses), "--room", "hall") == 0
    told = json.loads((tmp_path / "out" / "scene_000" / "scene.json").read_text())
    assert told["room"] == {"responses": "responses", "name": "hall"}
    assert sorted(source["azimuth_degrees"] for source in told["sources"]) == [0.0, 90.0]


def test_an_interrupted_run_writes_nothing_and_goes_on_from_the_cache(simulate, tmp_path, monkeypatch, capsys):
    cache, options = tmp_path / "cache", ["--scenes", "2", "--cache", str(tmp_path / "cache")]

    def interrupted(*args, index, **options):
        if index == 1:
            raise KeyboardInterrupt
        return random_scene(*args, index=index, **options)

    with monkeypatch.context() as patch:
        patch.setattr("vbss.scenes.random_scene", interrupted)
        assert simulate(*options) == 130
    assert capsys.readouterr().err == "vbss: interrupted\n"
    assert os.listdir(tmp_path) == ["cache"]
    first = set(cache.iterdir())
    assert len(first) == 1

    times = {file: file.stat().st_mtime_ns for file in first}
    assert simulate(*options) == 0
    assert len(list(cache.iterdir())) == 2
    assert {file: file.stat().st_mtime_ns for file in first} == times
    (tmp_path / "out").rename(tmp_path / "resumed")
    assert simulate("--scenes", "2") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "resumed")


def test_a_terminal_gets_a_progress_bar(simulate, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert simulate() == 0
    assert "simulating" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "dev"], "--split must be one of test, train, got 'dev'"),
        (["--sources", "4"], "3 speakers"),
        (["--sources", "5"], "--sources"),
        (["--seconds", "0.5"], "--seconds must be at least 1, got 0.5"),
        (["--noise", "nan"], "--noise must be a level in dB"),
        (["--diffuse-noise", "inf"], "--diffuse-noise must be a level in dB"),
        (["--babble", "nan"], "--babble must be a level in dB"),
        (["--room", "hall"], "--room 'hall' is one of measured responses"),
        (["--array", "missing.txt"], "missing.txt"),
        (["--cache", "{out}/cache"], "--cache '{out}/cache' lies inside the output folder"),
    ],
)
def test_wrong_options_are_told_in_one_line(simulate, tmp_path, capsys, options, message):
    out = str(tmp_path / "out")
    assert simulate(*(option.format(out=out) for option in options)) == 2
    error = capsys.readouterr().err
    assert message.format(out=out) in error and error.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_a_folder_that_holds_anything_is_left_alone(simulate, speech, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert simulate() == 0
    before = contents(tmp_path / "out")
    assert simulate("--seed", "1") == 2
    assert "not an earlier result" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert main(["simulate", str(speech), "--out", str(speech)]) == 2
    assert "SPEECH_FOLDER" in capsys.readouterr().err
