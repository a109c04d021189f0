"""The command line together with what it drives: nothing is replaced."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from vbss.audio import write_recording
from vbss.cli import main
from vbss.cli.arguments import settings
from vbss.cli.main import _parser
from vbss.metrics import angular_error
from vbss.scenes import demo_scene
from vbss.settings import Settings

ARRAY = "circular:4:0.08"


@pytest.fixture(scope="module")
def scene():
    return demo_scene(seconds=2.0, sample_rate=8000)


@pytest.fixture(scope="module")
def mix(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "mix.wav"
    write_recording(path, scene.mixture, scene.sample_rate)
    return path


def assert_located(report, scene):
    found = np.radians([source["direction_degrees"] for source in report["sources"]])
    errors = angular_error(found[:, None], scene.azimuths[None])
    assert np.degrees(errors.min(axis=0).max()) < 10


def test_separate(scene, mix, tmp_path):
    out = tmp_path / "result"
    assert main(["separate", str(mix), "--sources", "2", "--array", ARRAY, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [stage["model"] for stage in report["inference"]] == ["LDACGMM", "LocalGaussianNMF"]
    for stage in report["inference"]:
        assert stage["status"] in ("converged", "max_steps")
        assert len(stage["elbo"]) == stage["num_steps"] + 1
    assert_located(report, scene)
    assert sum(source["energy_share"] for source in report["sources"]) == pytest.approx(1.0)
    assert soundfile.info(out / "source_1.wav").frames == scene.mixture.shape[1]
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")


def test_localize(scene, mix, tmp_path, capsys):
    assert main(["localize", str(mix), "--sources", "2", "--array", ARRAY]) == 0
    lines = capsys.readouterr().out.splitlines()
    out = tmp_path / "result"
    assert main(["localize", str(mix), "--sources", "2", "--array", ARRAY, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"report.json", "report.png"}
    report = json.loads((out / "report.json").read_text())
    assert_located(report, scene)
    assert lines == [
        f"source {number}: direction {source['direction_degrees']:.0f} degrees, "
        f"probability {max(source['direction_posterior']['probabilities']):.2f}"
        for number, source in enumerate(report["sources"], 1)
    ]
    assert "energy_share" not in report["sources"][0]


@pytest.mark.parametrize("command", ["separate", "localize"])
def test_defaults_are_those_of_python(command):
    line = [command, "mix.wav", "--sources", "2", "--array", ARRAY, "--out", "result"]
    assert settings(_parser().parse_args(line)) == dataclasses.asdict(Settings())


def test_the_command_line_starts_without_heavy_imports():
    script = (
        "import sys; from vbss.cli import main; code = main(['--help']); "
        "print({'jax', 'numpy', 'scipy', 'matplotlib', 'numba'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "set()\n")


def test_what_is_compiled_is_kept(mix, tmp_path):
    script = "import sys; from vbss.cli import console; code = console(); sys.exit(code or 'numba' in sys.modules)"
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

    def run(recording):
        line = [sys.executable, "-c", script, "localize", str(recording), "--sources", "2", "--array", ARRAY, "--quiet"]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return {path.name for path in (tmp_path / "compiled" / "vbss").iterdir() if path.name.endswith("-cache")}

    first = run(mix)
    assert len(first) > 1
    # Another file of the same shape needs nothing new, though it has other pauses.
    samples, sample_rate = soundfile.read(mix)
    samples[: len(samples) // 3] *= 1e-3
    soundfile.write(tmp_path / "other.wav", samples, sample_rate, subtype="FLOAT")
    assert run(tmp_path / "other.wav") == first
