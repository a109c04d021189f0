"""`vbss train --model vae --speaker` and `vbss separate --networks`: a network for each speaker, then both apart."""

import json

import numpy as np
import pytest
from four_speakers import write_speakers

from vbss.audio import read_recording, write_recording
from vbss.cli import main
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like

SMALL = ["--model", "vae", "--sample-rate", "8000", "--epochs", "1", "--hidden-size", "8", "--codes", "2", "--quiet"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    speech, out = write_speakers(tmp_path_factory.mktemp("speech")), tmp_path_factory.mktemp("training")
    for name in ("speaker0", "speaker1"):
        arguments = ["train", "--data", str(speech), "--speaker", name, "--out", str(out / name), *SMALL]
        assert main(arguments) == 0
        assert main(arguments) == 0  # what is finished stays as it is
    return ",".join(str(out / name / "network.vbss") for name in ("speaker0", "speaker1"))


@pytest.fixture
def mix(tmp_path):
    sound = sum(speech_like(voice, 1.0, 8000, seed=5 + n) for n, voice in enumerate((LOW_VOICE, HIGH_VOICE)))
    write_recording(tmp_path / "mix.wav", 0.5 * sound.astype(np.float32), 8000)
    return tmp_path / "mix.wav"


def test_it_writes_each_speaker(networks, mix, tmp_path, capsys):
    arguments = ["separate", str(mix), "--model", "vae", "--networks", networks, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--algorithm", "mcem", "--iterations", "2"]) == 0
    assert "source_2.wav: expected SDR" in capsys.readouterr().out
    sources = [read_recording(tmp_path / "out" / f"source_{number}.wav").samples for number in (1, 2)]
    np.testing.assert_allclose(sum(sources), read_recording(mix).samples, atol=1e-3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["algorithm"] == "mcem" and len(report["sources"]) == 2
    assert report["inference"][0][0]["num_steps"] == 2
    assert main([*arguments, "--quiet"]) == 0 and capsys.readouterr().out == ""
    assert json.loads((tmp_path / "out" / "report.json").read_text())["algorithm"] == "langevin"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--networks": None}, "--model vae needs --networks"),
        ({"--networks": "nowhere.vbss,nowhere.vbss"}, "is no file"),
        ({"--networks": "{first}"}, "--networks must be two networks at least"),
        ({"--networks": "{first},{first}"}, "--networks must be of different speakers"),
        ({"--networks": "{first},"}, "--networks names no file between two commas"),
        ({"--algorithm": ""}, "--algorithm must be one of"),
        ({"--sources": "3"}, "--sources must be 2"),
        ({"--array": "linear:2:0.1"}, "leave out --array"),
        ({"--model": "cgmm"}, "--model must be vae"),
        ({"--block": "20"}, "leave out --block"),
        ({"--reference": "1"}, "leave out --reference"),
        ({"--components": "3"}, "--components is for recordings of several microphones"),
        ({"--algorithm": "em"}, "--algorithm must be one of"),
        ({"--model": None, "--networks": None}, "--sources is needed"),
    ],
)
def test_wrong_input_is_one_line(networks, mix, tmp_path, capsys, change, message):
    options = {"--model": "vae", "--networks": networks, "--out": str(tmp_path / "out")} | change
    told = [
        text.format(first=networks.split(",")[0]) for pair in options.items() if pair[1] is not None for text in pair
    ]
    assert main(["separate", str(mix), *told]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_two_channels_are_refused(networks, mix, tmp_path, capsys):
    write_recording(mix, np.repeat(read_recording(mix).samples, 2, 0), 8000)
    assert main(["separate", str(mix), "--networks", networks, "--out", str(tmp_path / "out")]) == 2
    assert "MIX must have one channel" in capsys.readouterr().err


def test_an_unknown_speaker_is_said(tmp_path, capsys):
    speech = write_speakers(tmp_path)
    arguments = ["train", "--data", str(speech), "--speaker", "nobody", "--out", str(tmp_path / "out"), *SMALL]
    assert main(arguments) == 2
    assert "--speaker must be one of 4 in --data, such as speaker0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "cgmm", "--speaker", "speaker0"], "--speaker is for --model vae"),
        (["--model", "vae", "--network", "nowhere.vbss", "--codes", "3"], "--codes is that of --network"),
        (["--model", "vae", "--network", "nowhere.vbss"], "is no file"),
        (["--kl-weight", "2"], "--kl-weight is for --model vae"),
        (["--model", "vae", "--layers", "2"], "--layers is for --model cgmm"),
        (["--model", "vae", "--validation", "nowhere"], "--validation is for --model cgmm"),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path, capsys, more, message):
    speech = write_speakers(tmp_path)
    assert main(["train", "--data", str(speech), "--sample-rate", "8000", "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
