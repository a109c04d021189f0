"""Input as it should not be: what is refused, in one line and with nothing written, and what is handled and told."""

import json

import numpy as np
import pytest
import soundfile

from vbss.cli import main
from vbss.metrics import angular_error
from vbss.scenes import demo_scene

ARRAY = "circular:4:0.08"
RATE = 8000


@pytest.fixture(scope="module")
def scene():
    return demo_scene(seconds=2.0, sample_rate=RATE)


@pytest.fixture
def separate(tmp_path, scene):
    """Run `vbss separate` on samples (microphones, samples) written as `subtype`; the report, if there is one."""

    def run(samples=None, subtype="FLOAT", rate=RATE, **changes):
        mix = tmp_path / "mix.wav"
        samples = scene.mixture if samples is None else samples
        soundfile.write(mix, np.asarray(samples).T, rate, subtype=subtype)
        options = {"mix": mix, "sources": 2, "array": ARRAY, "out": tmp_path / "result", "iterations": 3}
        options |= {"sum-iterations": 3} | changes
        line = ["separate", str(options.pop("mix"))]
        for name, value in options.items():
            line += [f"--{name}", str(value)]
        code = main(line)
        report = tmp_path / "result" / "report.json"
        return code, json.loads(report.read_text()) if report.exists() else None

    return run


def write(path, text):
    path.write_text(text)
    return path


def noise(channels=4, samples=4000):
    return 0.1 * np.random.default_rng(0).standard_normal((channels, samples))


REFUSED = {
    "missing file": (lambda folder: {"mix": folder / "nowhere.wav"}, "there is no sound file"),
    "a folder": (lambda folder: {"mix": folder}, "there is no sound file"),
    "not audio": (lambda folder: {"mix": write(folder / "a.wav", "not sound")}, "cannot be read as a sound file"),
    "mono": (lambda folder: {"samples": noise(1)}, "MIX has one channel"),
    "too few channels": (lambda folder: {"samples": noise(3)}, "4 microphones, but recording has 3 channels"),
    "too many channels": (lambda folder: {"samples": noise(5)}, "4 microphones, but recording has 5 channels"),
    "empty": (lambda folder: {"samples": np.zeros((4, 0))}, "is empty"),
    "all zero": (lambda folder: {"samples": np.zeros((4, 4000))}, "silent"),
    "nan": (lambda folder: {"samples": np.where(np.arange(4000) == 7, np.nan, noise())}, "must be finite"),
    "inf": (lambda folder: {"samples": np.where(np.arange(4000) == 7, np.inf, noise())}, "must be finite"),
    "shorter than a window": (lambda folder: {"samples": noise(samples=500)}, "at least one window"),
    "no sources": (lambda folder: {"sources": 0}, "--sources"),
    "a negative number": (lambda folder: {"sources": -2}, "--sources"),
    "an absurd number": (lambda folder: {"sources": 1000}, "--sources must be a whole number, from 1 to 72, got 1000"),
    "unknown model": (lambda folder: {"model": "rhubarb"}, "--model must be one of cgmm"),
    "unknown algorithm": (lambda folder: {"algorithm": "rhubarb"}, "--algorithm must be one of em, em-derived"),
    "no array file": (lambda folder: {"array": folder / "nowhere.txt"}, "nowhere.txt"),
    "binary array file": (lambda folder: {"array": __import__("sys").executable}, "cannot be read as text"),
    "words in the array file": (lambda folder: {"array": write(folder / "a.txt", "0 0\n1 one\n")}, "line 2"),
    "all microphones at one point": (
        lambda folder: {"array": write(folder / "a.txt", "0 0 0\n" * 4)},
        "at the same place",
    ),
    "an output folder that is a file": (lambda folder: {"out": write(folder / "taken", "")}, "is a file"),
    "an unwritable output folder": (lambda folder: {"out": "/dev/null/result"}, "not a folder you may write to"),
    "reference beyond the array": (lambda folder: {"reference": 4}, "--reference must be a whole number, from 0 to 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(separate, tmp_path, capsys, name):
    make, message = REFUSED[name]
    changes = make(tmp_path)
    before = {path.name for path in tmp_path.iterdir()} | {"mix.wav"}
    code, _ = separate(**changes)
    output = capsys.readouterr()
    assert code == 2
    assert output.out == "" and output.err.startswith("vbss: error: ") and output.err.count("\n") == 1
    assert message in output.err
    assert {path.name for path in tmp_path.iterdir()} == before


def clipped(samples):
    limit = 0.3 * np.abs(samples).max()
    return np.clip(samples, -limit, limit)


def with_silence(samples):
    samples = samples.copy()
    samples[:, 3000:7000] = 0
    return samples


def with_dead_channel(samples):
    return samples * np.array([[1], [1], [0], [1]])


def dying(samples):
    samples = samples.copy()
    samples[1, samples.shape[1] // 2 :] = 0
    return samples


HANDLED = {
    "dead channel": (lambda x: {"samples": with_dead_channel(x)}, ["channel 2 (counted from 0) is silent"]),
    "a channel that dies half-way": (
        lambda x: {"samples": dying(x)},
        ["channel 1 (counted from 0) has no sound from 1"],
    ),
    "clipping": (lambda x: {"samples": clipped(x)}, [f"channel {n} (counted from 0) is clipped" for n in range(4)]),
    "offset": (lambda x: {"samples": x + 0.2}, [f"channel {n} (counted from 0) has a constant" for n in range(4)]),
    "very quiet": (lambda x: {"samples": 1e-6 * x}, ["the recording is very quiet"]),
    "very loud": (lambda x: {"samples": 1e6 * x}, ["the recording is louder than full scale"]),
    "silent frames": (lambda x: {"samples": with_silence(x)}, ["25 % of the recording is digital silence"]),
    "24 bits": (lambda x: {"samples": x, "subtype": "PCM_24"}, []),
    "16 bits": (lambda x: {"samples": x, "subtype": "PCM_16"}, []),
    "double": (lambda x: {"samples": x, "subtype": "DOUBLE"}, []),
}


@pytest.mark.parametrize("name", HANDLED)
def test_handled(separate, scene, tmp_path, name):
    make, warnings = HANDLED[name]
    options = make(scene.mixture)
    code, report = separate(**options)
    assert code == 0 and report is not None
    told = [warning for warning in report["warnings"] if "uncertain" not in warning]
    assert len(told) == len(warnings)
    assert all(warning.startswith(expected) for warning, expected in zip(told, warnings, strict=True))
    found = np.radians([source["direction_degrees"] for source in report["sources"]])
    assert np.degrees(angular_error(found[:, None], scene.azimuths[None]).min(0).max()) < 10.1
    # At the level of the recording.
    sources = np.stack([soundfile.read(tmp_path / "result" / source["file"])[0] for source in report["sources"]])
    heard = options["samples"] - options["samples"].mean(1, keepdims=True)
    power = np.mean(sources.sum(0) ** 2) / np.mean(heard[0] ** 2)
    assert 0.9 < power < 1.1


def test_one_source_asked_as_two(separate, scene):
    alone = scene.images[0] + 1e-4 * noise(*scene.mixture.shape)
    code, report = separate(alone)
    assert code == 0 and report is not None
    (warning,) = (text for text in report["warnings"] if "energy" in text)
    assert warning.endswith("has less than 1 % of the energy: there may be fewer sources, or several in one direction.")


def test_a_line_of_microphones(separate, scene, tmp_path):
    positions = write(tmp_path / "line.txt", "0.04 0\n-0.04 0\n")
    code, report = separate(scene.mixture[[0, 2]], array=positions)
    assert code == 0 and report is not None
    assert "mirror image" in report["warnings"][0]


@pytest.mark.parametrize("rate", [11025, 44100, 192000])
def test_sample_rates(separate, rate):
    rng = np.random.default_rng(0)
    bursts = rng.standard_normal((2, rate // 4)) * (np.arange(rate // 4) * 32 // rate % 2 == [[0], [1]])
    mixture = bursts[0] + np.stack([np.roll(bursts[1], delay) for delay in (0, 2, 5, 3)]) + 1e-3 * noise(4, rate // 4)
    code, report = separate(mixture, rate=rate, window=0.016, hop=0.008, directions=12)
    assert code == 0 and report is not None
    assert report["input"]["sample_rate"] == rate
    assert all(stage["status"] in ("converged", "max_steps") for stage in report["inference"])
