"""`vbss train --model vae` and `vbss enhance`: from clean speech to speech out of noise, and errors in one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from four_speakers import write_speakers

from vbss import Status
from vbss.audio import read_recording, write_recording
from vbss.cli import main
from vbss.scenes import HIGH_VOICE, speech_like

SMALL = ["--model", "vae", "--sample-rate", "8000", "--epochs", "1", "--hidden-size", "8", "--codes", "2", "--quiet"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return write_speakers(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def network(speech, tmp_path_factory):
    out = tmp_path_factory.mktemp("training") / "out"
    assert main(["train", "--data", str(speech), "--out", str(out), *SMALL]) == 0
    return out / "network.vbss"


@pytest.fixture
def noisy(tmp_path):
    sound = speech_like(HIGH_VOICE, 1.0, 16000, seed=5) + 0.01 * np.random.default_rng(0).standard_normal(16000)
    write_recording(tmp_path / "noisy.wav", sound.astype(np.float32), 16000)
    return tmp_path / "noisy.wav"


def test_it_writes_speech_and_noise(network, noisy, tmp_path, capsys):
    arguments = ["enhance", str(noisy), "--network", str(network), "--iterations", "3", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--algorithm", "vem"]) == 0
    assert "speech.wav: expected SDR" in capsys.readouterr().out
    assert read_recording(tmp_path / "out" / "speech.wav").samples.shape == (1, 16000)
    assert main([*arguments, "--algorithm", "vem", "--quiet"]) == 0  # an earlier result is replaced
    assert capsys.readouterr().out == ""
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["algorithm"] == "vem" and report["inference"][0][0]["num_steps"] == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "noise.wav", "report.json", "report.png", "speech.wav",
    }  # fmt: skip


def test_it_works_without_a_network_of_ones_own(noisy, tmp_path):
    arguments = ["enhance", str(noisy), "--iterations", "2", "--algorithm", "encoder", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["network"] is None


def test_a_nonfinite_end_is_code_1_and_writes_nothing(noisy, tmp_path, capsys, monkeypatch):
    end = SimpleNamespace(status=Status.nonfinite)
    monkeypatch.setattr("vbss.enhancement.enhance", lambda *a, **k: SimpleNamespace(solutions=((end,),)))
    assert main(["enhance", str(noisy), "--out", str(tmp_path / "out")]) == 1
    assert Status.nonfinite.explanation in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--algorithm", "magic"], "--algorithm must be one of"),
        (["--network", "{noisy}"], "is not a file of vbss.save"),
        (["--network", "nowhere.vbss"], "is no file"),
        (["--noise-spectra", "0"], "--noise-spectra"),
        (["--out", "{folder}"], "output folder"),
    ],
)
def test_wrong_input_is_one_line(noisy, tmp_path, capsys, more, message):
    more = [text.format(noisy=noisy, folder=tmp_path) for text in more]
    assert main(["enhance", str(noisy), "--out", str(tmp_path / "out"), *more]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_speech_is_needed_for_a_model_of_it(tmp_path, capsys):
    assert main(["train", "--model", "vae", "--recordings", "x", "--out", str(tmp_path / "out")]) == 2
    assert "--model vae needs --data" in capsys.readouterr().err
