"""`vbss train` and `vbss separate --network`: from a folder of speech to a separated file, and errors in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from four_speakers import write_speakers

from vbss import Status, load
from vbss.audio import STFT, read_recording, write_recording
from vbss.cli import main
from vbss.neural import NeuralTraining, TrainedSeparator
from vbss.scenes import HIGH_VOICE, speech_like

SMALL = ["--scenes", "2", "--seconds", "0.5", "--hidden-size", "4", "--layers", "1", "--batch-size", "2"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return write_speakers(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(speech, tmp_path_factory):
    out = tmp_path_factory.mktemp("training") / "out"
    assert main(["train", "--data", str(speech), "--out", str(out), "--epochs", "1", "--quiet", *SMALL]) == 0
    return out


def test_it_writes_a_network_and_goes_on(speech, trained, capsys):
    assert (trained / "training.png").exists()
    assert main(["train", "--data", str(speech), "--out", str(trained), "--epochs", "2", *SMALL]) == 0
    assert "2 epochs" in capsys.readouterr().out
    entries = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [0, 1]


def test_the_network_separates_one_microphone(trained, tmp_path, capsys):
    sound = speech_like(HIGH_VOICE, 1.0, 8000, seed=5).astype(np.float32)
    write_recording(tmp_path / "mix.wav", sound, 8000)
    network, out = ["--network", str(trained / "network.vbss")], ["--sources", "2", "--out", str(tmp_path / "out")]
    assert main(["separate", str(tmp_path / "mix.wav"), *network, *out]) == 0
    found = [read_recording(tmp_path / "out" / f"source_{n}.wav").samples[0] for n in (1, 2)]
    np.testing.assert_allclose(sum(found), sound, atol=1e-5)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["sources"]) == 2 and (tmp_path / "out" / "report.png").exists()
    capsys.readouterr()
    for more, message in (
        (["--model", "cgmm"], "--model"),
        (["--window", "0.064"], "--window"),
        (["--all-channels"], "--all-channels"),
        (["--calibration", "x"], "--network"),
    ):
        assert main(["separate", str(tmp_path / "mix.wav"), *network, *out, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["separate", str(tmp_path / "mix.wav"), "--network", str(trained / "checkpoint.vbss"), *out]) == 2
    assert "no separator" in capsys.readouterr().err
    assert main(["separate", str(tmp_path / "mix.wav"), "--network", str(trained), *out]) == 2
    assert "is no file" in capsys.readouterr().err
    many = ["--sources", "3", "--out", str(tmp_path / "out")]
    assert main(["separate", str(tmp_path / "mix.wav"), *network, *many]) == 2
    assert "--sources" in capsys.readouterr().err
    auto = ["--sources", "auto", "--out", str(tmp_path / "out")]
    assert main(["separate", str(tmp_path / "mix.wav"), *network, *auto]) == 2
    assert "--sources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data"),
        (["--data", "nowhere"], "no folder of speech"),
        (["--recordings", "nowhere"], "nowhere"),
        (["--data", "{speech}", "--learning-rate", "-1"], "--learning-rate"),
        (["--data", "{speech}", "--hidden-size", "100000"], "--hidden-size"),
        (["--data", "{speech}", "--seconds", "inf"], "--seconds"),
        (["--data", "{speech}", "--array", "circular:1"], "circular"),
        (["--data", "{speech}", "--seconds", "0.1"], "--seconds"),
        (["--data", "{speech}", "--sources", "3", "--classes", "2"], "--classes"),
        (["--data", "{speech}", "--validation", "{speech}"], "--validation"),
    ],
)
def test_wrong_input_is_one_line(speech, tmp_path, capsys, arguments, message):
    arguments = [argument.format(speech=speech) for argument in arguments]
    assert main(["train", "--out", str(tmp_path / "out"), *SMALL[:2], *SMALL[4:], *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_folder_in_which_a_training_was_killed_may_be_used(speech, tmp_path):
    for name in (".checkpoint.vbss.0123abcd.new", ".training.lock"):
        (tmp_path / name).write_text("")
    assert main(["train", "--data", str(speech), "--out", str(tmp_path), "--epochs", "1", "--quiet", *SMALL]) == 0
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint.vbss", "metrics.jsonl", "network.vbss", "scenes", "training.png"]


def test_another_folder_is_not_touched(speech, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["train", "--data", str(speech), "--out", str(tmp_path), *SMALL]) == 2
    assert "--out" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_what_is_left_out_is_told_unless_quiet(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        samples = 0.1 * rng.standard_normal((8000, 4)).astype(np.float32)
        samples[100] = np.nan if name == "a" else 0
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000, subtype="FLOAT")
    (tmp_path / "list.csv").write_text("file,split\na.wav,train\nb.wav,dev\n")
    arguments = ["train", "--recordings", str(tmp_path / "list.csv"), "--epochs", "1", *SMALL]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.startswith("vbss: warning: ") and "a.wav from 0 s holds infinite or nan" in told
    assert told.count("\n") == 1
    assert main([*arguments, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_the_best_network_outlives_a_training_that_fails(speech, trained, tmp_path, capsys, monkeypatch):
    def fail(*arguments, **options):
        training = load(trained / "checkpoint.vbss")
        separator = TrainedSeparator(training.amortised.network.separator, STFT.init(8000))
        return NeuralTraining(separator, replace(training, status=Status.nonfinite))

    monkeypatch.setattr("vbss.neural.train_separator", fail)
    assert main(["train", "--data", str(speech), "--out", str(tmp_path), *SMALL]) == 1
    assert f"{tmp_path / 'network.vbss'} is the best until then" in capsys.readouterr().err
    assert load(tmp_path / "network.vbss").num_classes == 2


def test_recordings_train_too(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_recording(tmp_path / f"{name}.wav", 0.1 * rng.standard_normal((4, 8000)).astype(np.float32), 8000)
    (tmp_path / "list.csv").write_text("file,split\na.wav,train\nb.wav,dev\n")
    arguments = ["train", "--recordings", str(tmp_path / "list.csv"), "--epochs", "1", *SMALL, "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    files = ["--recordings", str(tmp_path / "a.csv"), "--validation", str(tmp_path / "b.csv")]
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"mixture_path\n{name}.wav\n")
    classes = ["--classes", "3", "--epochs", "1", *SMALL, "--quiet"]
    assert main(["train", *files, *classes, "--out", str(tmp_path / "two")]) == 0
    assert load(tmp_path / "two" / "network.vbss").num_classes == 3
    assert main([*arguments, "--array", "circular:3:0.1", "--out", str(tmp_path / "other")]) == 2
    assert "3 microphones" in capsys.readouterr().err
