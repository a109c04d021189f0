"""The command line in-process, with a stand-in for `separate`: what it reads, writes, says and returns."""

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

SAMPLE_RATE = 8000
NUM_SAMPLES = 4000


class StandIn:
    """Takes the place of `vbss.separation.separate`, records its arguments and does as told."""

    def __init__(self):
        self.status = "converged"
        self.error: BaseException | None = None
        self.sources: np.ndarray | None = None
        self.directions = np.arange(4) * np.pi / 2
        self.direction_posterior = np.eye(4)
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
        return SimpleNamespace(
            sources=sources,
            sample_rate=recording.sample_rate,
            azimuths=azimuths,
            direction_posterior=self.direction_posterior[:num_sources],
            directions=self.directions[:num_sources],
            energy_shares=np.full(num_sources, 1 / num_sources),
            solution=SimpleNamespace(status=Status[self.status], elbo=np.array([-2.0, -1.0]), num_steps=np.array(2)),
            seconds={"transform": 0.1, "inference": 0.2},
        )


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("vbss.separation")
    module.separate = StandIn()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vbss.separation", module)
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
        arguments = [str(options.pop("mix"))]
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        return main(["separate", *arguments])

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def the_one_line(capsys) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith("\n") and output.err.count("\n") == 1
    return output.err


def test_separate_writes_sources_and_report(separate, mix, out, capsys):
    assert separate() == 0
    assert files(out) == {"source_1.wav", "source_2.wav", "report.json"}
    samples, sample_rate = soundfile.read(out / "source_2.wav")
    assert sample_rate == SAMPLE_RATE
    np.testing.assert_allclose(samples, soundfile.read(mix)[0][:, 0] / 3, atol=1e-6)

    report = json.loads((out / "report.json").read_text())
    assert report == {
        "schema_version": 1,
        "vbss_version": version("vbss"),
        "model": "lda-cgmm",
        "algorithm": "em",
        "status": "converged",
        "warnings": [],
        "num_steps": 2,
        "elbo": [-2.0, -1.0],
        "input": {"file": str(mix), "sample_rate": SAMPLE_RATE, "channels": 4, "seconds": 0.5},
        "sources": [
            {
                "file": f"source_{n + 1}.wav",
                "direction_degrees": 90.0 * n,
                "direction_posterior": {
                    "azimuths_degrees": [0.0, 90.0, 180.0, 270.0],
                    "probabilities": np.eye(4)[n].tolist(),
                },
                "energy_share": 0.5,
            }
            for n in range(2)
        ],
        "seconds": {"transform": 0.1, "inference": 0.2},
    }
    output = capsys.readouterr()
    assert output.err == ""  # no progress bar: it is not a terminal
    assert output.out.splitlines() == [
        f"{out / 'source_1.wav'}: direction 0 degrees",
        f"{out / 'source_2.wav'}: direction 90 degrees",
    ]


def test_options_reach_separate(separate, stand_in):
    assert separate(sources=3, reference=2, iterations=7, seed=5, window=0.032, hop=0.008) == 0
    positions = stand_in.options.pop("positions")
    np.testing.assert_allclose(positions[1], [0.0, 0.04, 0.0], atol=1e-12)
    assert stand_in.options == {
        "num_sources": 3,
        "reference_microphone": 2,
        "max_steps": 7,
        "seed": 5,
        "window": 0.032,
        "hop": 0.008,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mix": "nowhere.wav"}, "nowhere.wav"),
        ({"mix": __file__}, "test_cli.py"),
        ({"array": "circular:four:0.08"}, "circular:four:0.08"),
        ({"array": "nowhere.txt"}, "nowhere.txt"),
        ({"sources": 0}, "--sources"),
        ({"sources": "two"}, "'two'"),
        ({"reference": -1}, "--reference"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed: must be a whole number from 0 to 4294967295"),
        ({"window": "long"}, "--window"),
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


@pytest.mark.parametrize(("error", "code"), [(ValueError("bad\nshape"), 2), (MemoryError("116 TiB"), 1)])
def test_errors_from_below_are_one_line(separate, stand_in, out, capsys, error, code):
    stand_in.error = error
    assert separate() == code
    assert str(error).split()[-1] in the_one_line(capsys)
    assert not out.exists()


def test_errors_name_the_options(separate, stand_in, capsys):
    from vbss.errors import InputError

    stand_in.error = InputError("num_sources must be a whole number")
    assert separate() == 2
    assert the_one_line(capsys) == "vbss: error: --sources must be a whole number\n"


def test_doubtful_results_are_warned_of(separate, stand_in, mix, out, capsys):
    samples = soundfile.read(mix)[0] * [1, 1e-4, 1, 1]
    soundfile.write(mix, samples, SAMPLE_RATE, subtype="FLOAT")
    stand_in.directions = np.array([np.pi, 0.0, np.pi])
    stand_in.direction_posterior = np.array([[0, 0, 1.0, 0], [0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]])
    assert separate(sources=3) == 0
    warnings = json.loads((out / "report.json").read_text())["warnings"]
    assert capsys.readouterr().err.splitlines() == [f"vbss: warning: {warning}" for warning in warnings]
    channel, posterior, shared = warnings
    assert "channel 1 " in channel and "60 dB" in channel
    assert "direction of source 2 is uncertain" in posterior and "0.40" in posterior
    assert "sources 1 and 3 share one direction" in shared


@pytest.mark.parametrize("arguments", [[], ["separate"], ["rhubarb"]])
def test_usage_errors_are_one_line_and_code_2(capsys, arguments):
    assert main(arguments) == 2
    assert "--help" in the_one_line(capsys)


@pytest.mark.parametrize("arguments", [["--help"], ["separate", "--help"], ["demo", "--help"], ["--version"]])
def test_help_and_version_succeed(capsys, arguments):
    assert main(arguments) == 0
    assert "vbss" in capsys.readouterr().out


def test_a_nonfinite_posterior_is_code_1_and_writes_nothing(separate, stand_in, out, capsys):
    stand_in.status = "nonfinite"
    assert separate() == 1
    assert the_one_line(capsys) == f"vbss: error: {Status.nonfinite.explanation}\n"
    assert files(out.parent) == {"mix.wav"}


def test_a_bound_that_fell_is_a_warning(separate, stand_in, out, capsys):
    stand_in.status = "bound_decreased"
    assert separate() == 0
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "bound_decreased"
    assert capsys.readouterr().err == f"vbss: warning: {report['warnings'][0]}\n"


def test_the_step_limit_is_a_success(separate, stand_in, out, capsys):
    stand_in.status = "max_steps"
    assert separate() == 0
    assert json.loads((out / "report.json").read_text())["status"] == "max_steps"
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
    assert files(out) == {"source_1.wav", "source_2.wav", "report.json"}
    assert files(out.parent) == {"mix.wav", "result"}


def test_demo_writes_the_mixture_too_and_compares_with_the_truth(stand_in, out, capsys):
    from vbss.metrics import signal_to_distortion_ratio
    from vbss.scenes import demo_scene

    scene = demo_scene(seed=3)
    images = scene.images[:, 0]
    stand_in.sources = images[::-1] + 0.1 * images
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    assert files(out) == {"mixture.wav", "source_1.wav", "source_2.wav", "report.json"}
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
