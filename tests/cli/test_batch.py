"""`vbss batch`: what it takes for recordings, writes, keeps and says, in one process and in two."""

import csv
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from vbss.cli import main
from vbss.separation import many

SAMPLE_RATE = 8000
OPTIONS = (
    "--sources 2 --array circular:4:0.08 --model cgmm --iterations 3 --window 0.064 --directions 24 "
    "--block 1 --overlap 0.25"
).split()
RESULT = {"source_1.wav", "source_2.wav", "report.json", "report.png"}


def write_noise(path, seconds=1.0, channels=4, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal((int(seconds * SAMPLE_RATE), channels))
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT" if path.suffix == ".wav" else "PCM_24")


def table(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(lines))


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def batch(tmp_path):
    return lambda *more: main(["batch", str(tmp_path / "in"), *OPTIONS, "--out", str(tmp_path / "out"), *more])


@pytest.fixture
def counted(monkeypatch):
    """How many samples, with the silence at the end, every separation was given."""
    lengths, separate = [], many.separate_recorded

    def counting(recorded, *arguments, **options):
        lengths.append(recorded.samples.shape[1])
        return separate(recorded, *arguments, **options)

    monkeypatch.setattr(many, "separate_recorded", counting)
    return lengths


def test_a_folder_is_separated_and_what_is_done_is_kept(batch, tmp_path, counted, capsys):
    write_noise(tmp_path / "in" / "b.wav", 0.98)
    write_noise(tmp_path / "in" / "sub" / "a.flac", 1.0, seed=1)
    write_noise(tmp_path / "in" / "long.wav", 1.3, seed=2)
    write_noise(tmp_path / "in" / ".hidden.wav")
    assert batch() == 0
    output = capsys.readouterr()
    assert output.out == f"{tmp_path / 'out'}: 3 recordings, 0 of them separated earlier, 0 with warnings\n"
    assert output.err == ""
    out = tmp_path / "out"
    assert names(out) == {"b", "long", "sub", "summary.csv"} and names(out / "sub") == {"a"}
    for name, samples in (("b", 7840), ("sub/a", 8000), ("long", 10400)):
        assert names(out / name) == RESULT
        assert soundfile.info(out / name / "source_2.wav").frames == samples
    report = json.loads((out / "b" / "report.json").read_text())
    assert report["input"]["files"] == [str(tmp_path / "in" / "b.wav")] and report["input"]["seconds"] == 0.98
    assert len(json.loads((out / "long" / "report.json").read_text())["blocks"]) == 2
    rows = table(out / "summary.csv")
    assert [(row["name"], row["status"], row["seconds"], row["num_sources"]) for row in rows] == [
        ("b", "done", "0.98", "2"),
        ("long", "done", "1.3", "2"),
        ("sub/a", "done", "1.0", "2"),
    ]
    assert rows[0]["directions_degrees"].count(" ") == 1 and rows[0]["expected_sdr_db"] == ""
    assert rows[0]["warnings"] == " ".join(report["warnings"]) and rows[0]["error"] == ""
    assert counted == [8192, 8192]

    # What is the same is kept; what changed, is new or was lost in part is separated.
    write_noise(tmp_path / "in" / "sub" / "a.flac", 1.0, seed=3)
    write_noise(tmp_path / "in" / "mono.wav", channels=1)
    before = (out / "b" / "report.json").stat().st_mtime_ns
    assert batch() == 1
    output = capsys.readouterr()
    assert output.err == (
        "vbss: error: mono: recording has one channel; a microphone array has two or more.\n"
        "vbss: error: 1 of 4 recordings failed.\n"
    )
    assert [row["status"] for row in table(out / "summary.csv")] == ["kept", "kept", "failed", "done"]
    assert (out / "b" / "report.json").stat().st_mtime_ns == before and "mono" not in names(out)
    assert counted == [8192] * 3

    (tmp_path / "in" / "mono.wav").unlink()
    (out / "b" / "source_1.wav").unlink()
    assert batch("--quiet") == 0
    assert [row["status"] for row in table(out / "summary.csv")] == ["done", "kept", "kept"]
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def asked(monkeypatch):
    """What `separate_many` is asked for, in place of doing it."""
    arguments = {}

    def separate_many(recordings, microphone_positions, num_sources, **options):
        arguments.update(recordings=recordings, num_sources=num_sources, **options)
        return iter(())

    monkeypatch.setattr(many, "separate_many", separate_many)
    return arguments


def test_a_table_names_recordings_and_their_sources(tmp_path, asked):
    write_noise(tmp_path / "in" / "a.wav")
    write_noise(tmp_path / "b.wav")
    (tmp_path / "in" / "table.csv").write_text("file,name,sources\na.wav,,3\n../b.wav,other/b,\na.wav,again,auto\n")
    line = ["batch", str(tmp_path / "in" / "table.csv"), *OPTIONS, "--out", str(tmp_path / "out"), "--reference", "1"]
    assert main(line) == 0
    assert asked["num_sources"] == {"a": 3, "other/b": 2, "again": "auto"}
    assert asked["recordings"]["other/b"].resolve() == tmp_path / "b.wav"
    assert asked["reference_microphone"] == 1 and asked["max_steps"] == 3


def test_the_sources_of_simulated_scenes_are_no_recordings(tmp_path, asked):
    for folder in ("in/scene_000", "in/own"):
        for name in ("mixture.wav", "source_1.wav"):
            write_noise(tmp_path / folder / name)
    (tmp_path / "in" / "scene_000" / "scene.json").write_text("{}")
    assert main(["batch", str(tmp_path / "in"), *OPTIONS, "--out", str(tmp_path / "out")]) == 0
    assert sorted(asked["recordings"]) == ["own/mixture", "own/source_1", "scene_000/mixture"]


def test_a_folder_that_holds_something_else_is_not_replaced(batch, tmp_path, asked, capsys):
    write_noise(tmp_path / "in" / "a.wav")
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "diary.txt").write_text("dear")
    assert batch() == 1
    assert "holds 'diary.txt', which is not an earlier result" in capsys.readouterr().err
    assert asked["recordings"] == {} and names(tmp_path / "out" / "a") == {"diary.txt"}


def test_all_channels_are_refused_for_long_recordings_alone(batch, tmp_path, asked, capsys):
    write_noise(tmp_path / "in" / "long.wav", 1.3)
    assert batch("--all-channels") == 1
    assert "long: --all-channels is for recordings of one block" in capsys.readouterr().err


def nothing(folder):
    return folder / "in"


def empty(folder):
    (folder / "in").mkdir()
    return folder / "in"


def one_file(folder):
    write_noise(folder / "a.wav")
    return folder / "a.wav"


def twice(folder):
    write_noise(folder / "in" / "a.wav")
    write_noise(folder / "in" / "a.flac")
    return folder / "in"


def inside_another(folder):
    write_noise(folder / "in" / "a.wav")
    write_noise(folder / "in" / "a" / "b.wav")
    return folder / "in"


def lines(text):
    def make(folder):
        write_noise(folder / "a.wav")
        (folder / "table.csv").write_bytes(text)
        return folder / "table.csv"

    return make


REFUSED = {
    "nothing": (nothing, (), "there is no folder or table of recordings"),
    "an empty folder": (empty, (), "holds no sound files"),
    "a sound file": (one_file, (), "vbss separate takes one recording"),
    "two recordings of one name": (twice, (), "are two recordings of one name, 'a'"),
    "a result inside another": (inside_another, (), "has the name 'a/b', which lies inside that of"),
    "a table without the column": (lines(b"path\na.wav\n"), (), "has no column 'file'"),
    "a table without lines": (lines(b"file\n"), (), "names no recordings"),
    "a table that is none": (lines(b"\xff\xfe\x00"), (), "is no table of comma-separated values"),
    "a missing file": (lines(b"file\nb.wav\n"), (), "names the file 'b.wav', which is not there"),
    "a number of sources that is none": (lines(b"file,sources\na.wav,few\n"), (), "sources of 'a.wav' must be a whole"),
    "a name outside": (lines(b"file,name\na.wav,../a\n"), (), "cannot be in a folder called '../a'"),
    "a name of the summary": (lines(b"file,name\na.wav,summary.csv\n"), (), "a folder called 'summary.csv'"),
    "no count without an array": (
        lines(b"file,sources\na.wav,auto\n"),
        ("--model", "cacgmm"),
        "--sources must be a number where the microphones' places are not known",
    ),
    "too many sources": (lines(b"file,sources\na.wav,25\n"), (), "--sources must be a whole number, from 1 to 24"),
    "an unknown model": (lines(b"file\na.wav\n"), ("--model", "rhubarb"), "--model must be one of"),
    "input inside the results": (lines(b"file\na.wav\n"), ("--out", "{0}"), "lies inside the output folder"),
    "results that are a file": (lines(b"file\na.wav\n"), ("--out", "{0}/table.csv/out"), "cannot be made"),
    "no coordinator": (one_file, ("--process", "0"), "need --coordinator"),
    "no port": (one_file, ("--coordinator", "here"), "--coordinator must be HOST:PORT"),
    "no such port": (one_file, ("--coordinator", "here:99999"), "--coordinator must be HOST:PORT"),
    "no such process": (
        one_file,
        ("--coordinator", "here:1", "--processes", "2", "--process", "2"),
        "--process must be below --processes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, asked, capsys, name):
    make, more, message = REFUSED[name]
    more = [text.format(tmp_path) for text in more]
    assert main(["batch", str(make(tmp_path)), *OPTIONS, "--out", str(tmp_path / "out"), *more]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("vbss: error: ") and output.err.count("\n") == 1
    assert message in output.err
    assert asked == {} and not (tmp_path / "out").exists()


def test_results_inside_the_folder_of_recordings_are_refused(tmp_path, asked, capsys):
    write_noise(tmp_path / "in" / "a.wav")
    assert main(["batch", str(tmp_path / "in"), *OPTIONS, "--out", str(tmp_path / "in" / "out")]) == 2
    assert "lies inside INPUT" in capsys.readouterr().err


def test_two_processes_share_a_folder(tmp_path):
    for number, name in enumerate("abcd"):
        write_noise(tmp_path / "in" / f"{name}.wav", 0.5, channels=2, seed=number)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = "--sources 1 --array linear:2:0.05 --model cgmm --iterations 2 --window 0.064 --directions 12".split()
    line = [sys.executable, "-m", "vbss", "batch", str(tmp_path / "in"), *options, "--out", str(tmp_path / "out")]
    line += ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "cache")
    processes = [
        subprocess.Popen(
            [*line, str(number)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(2)
    ]
    try:
        told = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], told
    assert all(output.startswith(f"{tmp_path / 'out'}: 2 recordings") for output, _ in told)
    out = tmp_path / "out"
    assert names(out) == {*"abcd", "summary.csv", "summary.0.csv", "summary.1.csv"}
    shares = [[row["name"] for row in table(out / f"summary.{number}.csv")] for number in range(2)]
    assert shares == [["a", "b"], ["c", "d"]]
    assert [(row["name"], row["status"]) for row in table(out / "summary.csv")] == [(name, "done") for name in "abcd"]
    for name in "abcd":
        assert names(out / name) == RESULT - {"source_2.wav"}
