"""The command line together with what it drives."""

import ast
import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vbss.cli
from vbss.cli import main


def test_separate_with_nothing_replaced(tmp_path):
    from vbss.audio import write_recording
    from vbss.metrics import angular_error
    from vbss.scenes import demo_scene

    out = tmp_path / "result"
    scene = demo_scene(seconds=2.0)
    write_recording(tmp_path / "mix.wav", scene.mixture, scene.sample_rate)
    line = [
        "separate",
        str(tmp_path / "mix.wav"),
        "--sources",
        "2",
        "--array",
        "circular:4:0.08",
        "--out",
        str(out),
    ]
    assert main(line) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["status"] in ("converged", "max_steps")
    assert len(report["elbo"]) == report["num_steps"] + 1
    found = np.radians([source["direction_degrees"] for source in report["sources"]])
    errors = angular_error(found[:, None], scene.azimuths[None])
    assert np.degrees(errors.min(axis=0).max()) < 10
    assert sum(source["energy_share"] for source in report["sources"]) == pytest.approx(1.0)
    assert soundfile.info(out / "source_1.wav").frames == scene.mixture.shape[1]


def test_defaults_are_those_of_separate():
    from vbss.separation import separate

    line = ["separate", "mix.wav", "--sources", "2", "--array", "circular:4:0.08", "--out", "result"]
    given = vbss.cli._parser().parse_args(line)
    parameters = inspect.signature(separate).parameters
    for option, parameter in {
        "reference": "reference_microphone",
        "iterations": "max_steps",
        "seed": "seed",
        "window": "window",
        "hop": "hop",
    }.items():
        assert getattr(given, option) == parameters[parameter].default


def test_importing_the_command_line_is_cheap():
    tree = ast.parse(Path(vbss.cli.__file__).read_text())
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    ours = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert ours == {"vbss.errors", "vbss.output"}
