"""`vbss separate` in-process, with a stand-in for the inference: what it reads, writes, says and returns."""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from vbss.cli import main
from vbss.inference import Status
from vbss.settings import Settings

SAMPLE_RATE = 8000
NUM_SAMPLES = 4000
POSITIONS = [[0.04, 0.0, 0.0], [0.0, 0.04, 0.0], [-0.04, 0.0, 0.0], [0.0, -0.04, 0.0]]


_NOT_SETTINGS = ("reference_microphone", "all_channels")


class StandIn:
    """Takes the place of `vbss.separation.separate`, records its arguments and does as told."""

    def __init__(self):
        self.status = "converged"
        self.error: BaseException | None = None
        self.sources: np.ndarray | None = None
        self.warnings = ()
        self.options: dict = {}

    def __call__(self, recording, microphone_positions, num_sources, *, progress, **options):
        self.options = options | {"num_sources": num_sources, "positions": microphone_positions}
        progress(1, 30, -2.0)
        if self.error is not None:
            raise self.error
        sources = self.sources
        if sources is None:
            sources = np.stack([recording.samples[0] / (n + 2) for n in range(num_sources)])
        azimuths = np.arange(4) * np.pi / 2
        solution = SimpleNamespace(
            model=self, status=Status[self.status], elbo=np.array([-2.0, -1.0]), num_steps=np.array(2)
        )
        return SimpleNamespace(
            sources=sources,
            images=np.stack([source * np.arange(1, 5)[:, None] for source in sources])
            if options.get("all_channels")
            else None,
            sample_rate=recording.sample_rate,
            azimuths=azimuths,
            direction_posterior=np.eye(4)[:num_sources],
            directions=azimuths[:num_sources],
            classes=np.arange(num_sources),
            number_probabilities=None,
            settings=Settings(**{name: value for name, value in options.items() if name not in _NOT_SETTINGS}).of_array(
                microphone_positions is not None
            ),
            warnings=self.warnings,
            reference_microphone=0,
            energy_shares=np.full(num_sources, 1 / num_sources),
            expected_sdr=np.full(num_sources, 12.5),
            solutions={"mixture model": solution},
            seconds={"transform": 0.1, "mixture model": 0.2},
        )


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("vbss.separation")
    module.separate = StandIn()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vbss.separation", module)
    picture = SimpleNamespace(savefig=lambda path, **_: path.write_bytes(b"picture"))
    monkeypatch.setattr("vbss.plots.plot_separation", lambda recording, separation: picture)
    return module.separate


@pytest.fixture
def mix(tmp_path):
    path = tmp_path / "mix.wav"
    samples = 0.1 * np.random.default_rng(0).standard_normal((NUM_SAMPLES, 4))
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "result"


@pytest.fixture
def separate(stand_in, mix, out):
    """Run `vbss separate` on the mixture, with options replaced or added."""

    def run(**changes):
        options = {"mix": mix, "sources": 2, "array": "circular:4:0.08", "out": out} | changes
        mixes = options.pop("mix")
        arguments = [str(mix) for mix in (mixes if isinstance(mixes, list) else [mixes])]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        return main(["separate", *arguments])

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def the_one_line(capsys) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith("\n") and output.err.count("\n") == 1
    return output.err


def test_sources_of_all_channels(stand_in, mix, out):
    assert (
        main(["separate", str(mix), "--sources", "2", "--array", "linear:4:0.1", "--out", str(out), "--all-channels"])
        == 0
    )
    first, channels = (soundfile.read(path)[0] for path in (mix, out / "source_2.wav"))
    np.testing.assert_allclose(channels, first[:, :1] / 3 * np.arange(1, 5), rtol=1e-6)


def test_separate_writes_sources_and_report(separate, mix, out, capsys):
    assert separate() == 0
    assert files(out) == {"source_1.wav", "source_2.wav", "report.json", "report.png"}
    samples, sample_rate = soundfile.read(out / "source_2.wav")
    assert sample_rate == SAMPLE_RATE
    np.testing.assert_allclose(samples, soundfile.read(mix)[0][:, 0] / 3, atol=1e-6)

    report = json.loads((out / "report.json").read_text())
    assert report == {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "model": "cgmm+nmf",
        "algorithm": "em",
        "precision": "float32",
        "settings": {
            "max_steps": 30,
            "num_components": 16,
            "max_sum_steps": 60,
            "window": 0.128,
            "hop": 0.032,
            "num_directions": 72,
            "loading": 1e-4,
            "seed": 0,
        },
        "warnings": [],
        "inference": [
            {
                "stage": "mixture model",
                "model": "StandIn",
                "status": "converged",
                "num_steps": 2,
                "elbo": [-2.0, -1.0],
            }
        ],
        "input": {
            "files": [str(mix)],
            "sample_rate": SAMPLE_RATE,
            "channels": 4,
            "seconds": 0.5,
            "microphone_positions": POSITIONS,
        },
        "number_probabilities": None,
        "reference_microphone": 0,
        "sources": [
            {
                "file": f"source_{n + 1}.wav",
                "direction_degrees": 90.0 * n,
                "direction_posterior": {
                    "azimuths_degrees": [0.0, 90.0, 180.0, 270.0],
                    "probabilities": np.eye(4)[n].tolist(),
                },
                "energy_share": 0.5,
                "expected_sdr_db": 12.5,
            }
            for n in range(2)
        ],
        "seconds": {"transform": 0.1, "mixture model": 0.2},
    }
    output = capsys.readouterr()
    assert output.err == ""  # no progress bar: it is not a terminal
    assert output.out.splitlines() == [
        f"{out / 'source_1.wav'}: direction 0 degrees, 50 % of the energy, expected SDR 12 dB",
        f"{out / 'source_2.wav'}: direction 90 degrees, 50 % of the energy, expected SDR 12 dB",
    ]


DEFAULTS = dataclasses.asdict(Settings()) | {"reference_microphone": 0, "all_channels": False}


@pytest.mark.parametrize(
    ("given", "reach"),
    [
        ({}, {}),
        ({"reference": 2, "iterations": 7, "seed": 5}, {"reference_microphone": 2, "max_steps": 7, "seed": 5}),
        # The names of the Python interface work too.
        ({"reference_microphone": 1, "max_steps": 9}, {"reference_microphone": 1, "max_steps": 9}),
        ({"num_directions": 36, "loading": 0.5}, {"num_directions": 36, "loading": 0.5}),
        ({"directions": 24, "window": 0.032, "hop": 0.008}, {"num_directions": 24, "window": 0.032, "hop": 0.008}),
        ({"model": "cgmm", "algorithm": "em-derived"}, {"model": "cgmm", "algorithm": "em-derived"}),
        ({"precision": "float64"}, {"precision": "float64"}),
        ({"components": 4, "sum_iterations": 9}, {"num_components": 4, "max_sum_steps": 9}),
        ({"num_components": 5, "max_sum_steps": 8}, {"num_components": 5, "max_sum_steps": 8}),
    ],
)
def test_options_reach_separate(separate, stand_in, given, reach):
    assert separate(**given) == 0
    positions = stand_in.options.pop("positions")
    np.testing.assert_allclose(positions[1], [0.0, 0.04, 0.0], atol=1e-12)
    assert stand_in.options == DEFAULTS | {"num_sources": 2} | reach


def test_one_file_per_channel(separate, stand_in, mix, out):
    samples, _ = soundfile.read(mix)
    files_of_channels = []
    for channel in range(4):
        files_of_channels.append(mix.with_name(f"channel_{channel}.wav"))
        soundfile.write(files_of_channels[-1], samples[:, channel], SAMPLE_RATE, subtype="FLOAT")
    assert separate(mix=files_of_channels) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["input"]["files"] == [str(file) for file in files_of_channels]
    assert report["input"]["channels"] == 4


def test_quiet_says_nothing(separate, stand_in, out, mix, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    stand_in.warnings = ("it is so",)
    assert (
        main(["separate", str(mix), "--sources", "2", "--array", "circular:4:0.08", "--out", str(out), "--quiet"]) == 0
    )
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")
    assert json.loads((out / "report.json").read_text())["warnings"] == ["it is so"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mix": "nowhere.wav"}, "nowhere.wav"),
        ({"mix": __file__}, "test_separate.py"),
        ({"array": "circular:four:0.08"}, "circular:four:0.08"),
        ({"array": "nowhere.txt"}, "nowhere.txt"),
        ({"sources": 0}, "--sources"),
        ({"sources": "two"}, "'two'"),
        ({"reference": -1}, "--reference"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed: must be a whole number from 0 to 4294967295"),
        ({"window": "long"}, "--window"),
        ({"loading": "little"}, "--loading"),
        (
            {"model": "rhubarb"},
            "model must be one of cgmm, cgmm+nmf, cgmm+fastmnmf, cacgmm, cacgmm+nmf, cacgmm+fastmnmf, got 'rhubarb'",
        ),
        ({"algorithm": "rhubarb"}, "algorithm must be one of em, em-derived, got 'rhubarb'"),
        ({"precision": "float16"}, "precision must be one of float32, float64, got 'float16'"),
        ({"rhubarb": 1}, "--rhubarb"),
    ],
)
def test_bad_input_is_one_line_and_code_2(separate, out, capsys, changes, says):
    assert separate(**changes) == 2
    line = the_one_line(capsys)
    assert line.startswith("vbss: error: ") and says in line
    assert not out.exists()


def test_an_error_of_several_lines_is_told_in_one(separate, stand_in, capsys):
    from vbss.errors import InputError

    stand_in.error = InputError("first\nsecond")
    assert separate() == 2
    assert the_one_line(capsys) == "vbss: error: first second\n"


@pytest.mark.parametrize("option", ["mix", "array"])
def test_an_input_inside_the_output_folder_is_refused_and_kept(separate, mix, out, capsys, option):
    assert separate() == 0
    capsys.readouterr()
    inside = out / "mixture.wav"
    inside.write_bytes(mix.read_bytes())
    before = files(out)
    assert separate(**{option: inside}) == 2
    assert "lies inside the output folder" in the_one_line(capsys)
    assert files(out) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad\nshape"), 2),
        (MemoryError("116 TiB"), 1),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), 1),
    ],
)
def test_errors_from_below_are_one_line(separate, stand_in, out, capsys, error, code):
    stand_in.error = error
    assert separate() == code
    line = the_one_line(capsys)
    assert "out of memory" in line if code == 1 else str(error).split()[-1] in line
    assert not out.exists()


def test_errors_name_the_options(separate, stand_in, capsys):
    from vbss.errors import InputError

    stand_in.error = InputError("num_sources must be a whole number")
    assert separate() == 2
    assert the_one_line(capsys) == "vbss: error: --sources must be a whole number\n"


def test_warnings_are_told_and_reported(separate, stand_in, out, capsys):
    stand_in.warnings = ("the first.", "the second.")
    assert separate() == 0
    assert json.loads((out / "report.json").read_text())["warnings"] == ["the first.", "the second."]
    assert capsys.readouterr().err == "vbss: warning: the first.\nvbss: warning: the second.\n"


@pytest.mark.parametrize("arguments", [[], ["separate"], ["rhubarb"]])
def test_usage_errors_are_one_line_and_code_2(capsys, arguments):
    assert main(arguments) == 2
    assert "--help" in the_one_line(capsys)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["separate", "--help"], ["localize", "--help"], ["demo", "--help"], ["--version"]]
)
def test_help_and_version_succeed(capsys, arguments):
    assert main(arguments) == 0
    assert "vbss" in capsys.readouterr().out


def test_a_nonfinite_posterior_is_code_1_and_writes_nothing(separate, stand_in, out, capsys):
    stand_in.status = "nonfinite"
    assert separate() == 1
    assert the_one_line(capsys) == f"vbss: error: {Status.nonfinite.explanation}\n"
    assert files(out.parent) == {"mix.wav"}


def test_the_step_limit_is_a_success(separate, stand_in, out, capsys):
    stand_in.status = "max_steps"
    assert separate() == 0
    assert json.loads((out / "report.json").read_text())["inference"][0]["status"] == "max_steps"
    assert capsys.readouterr().err == ""


def test_interruption_is_code_130_and_writes_nothing(separate, stand_in, out, capsys):
    stand_in.error = KeyboardInterrupt()
    assert separate() == 130
    assert the_one_line(capsys) == "vbss: interrupted\n"
    stand_in.error, stand_in.status = None, "interrupted"
    assert separate() == 130
    assert files(out.parent) == {"mix.wav"}


@pytest.mark.parametrize(("failure", "code"), [(KeyboardInterrupt(), 130), (OSError("disk full"), 2)])
@pytest.mark.parametrize("earlier_result", [False, True])
def test_a_failure_while_writing_leaves_what_was(separate, stand_in, out, monkeypatch, failure, code, earlier_result):
    if earlier_result:
        assert separate() == 0
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}
    stand_in.sources = np.full((2, NUM_SAMPLES), 0.5)
    write_text = Path.write_text

    def fail(path, *args, **kwargs):  # the report is written last
        write_text(path, "half a rep")
        raise failure

    monkeypatch.setattr(Path, "write_text", fail)
    assert separate() == code
    assert {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()} == before


def test_a_report_with_a_nonfinite_number_is_not_written(separate, stand_in, out):
    stand_in.sources = np.full((2, NUM_SAMPLES), np.nan)
    assert separate() == 2
    assert files(out.parent) == {"mix.wav"}


def test_an_earlier_result_is_replaced(separate, out):
    assert separate(sources=3) == 0
    assert separate(sources=2) == 0
    assert files(out) == {"source_1.wav", "source_2.wav", "report.json", "report.png"}
    assert files(out.parent) == {"mix.wav", "result"}


def test_demo_writes_the_mixture_too_and_compares_with_the_truth(stand_in, out, capsys):
    from vbss.metrics import signal_to_distortion_ratio
    from vbss.scenes import demo_scene

    scene = demo_scene(seed=3)
    images = scene.images[:, 0]
    stand_in.sources = images[::-1] + 0.1 * images
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    assert files(out) == {"mixture.wav", "source_1.wav", "source_2.wav", "report.json", "report.png"}
    mixture, sample_rate = soundfile.read(out / "mixture.wav")
    assert sample_rate == 16000
    np.testing.assert_allclose(mixture.T, scene.mixture, atol=1e-6)

    before, _ = signal_to_distortion_ratio(images, np.stack([scene.mixture[0]] * 2))
    after, _ = signal_to_distortion_ratio(images, stand_in.sources)
    true = np.degrees(scene.azimuths) % 360
    assert capsys.readouterr().out.splitlines() == [
        f"{out / f'source_{file}.wav'}: voice {voice + 1}, direction {direction} degrees "
        f"(true {true[voice]:.0f}), SDR {after[voice]:.1f} dB (in the mixture {before[voice]:.1f})"
        for voice, (file, direction) in enumerate([(2, 90), (1, 0)])
    ]


def test_the_progress_bar_is_for_terminals_only(separate, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert separate() == 0
    output = capsys.readouterr()
    assert "separating" in output.err and "separating" not in output.out
