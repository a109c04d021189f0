import os
import re
import subprocess
import sys
from pathlib import Path


def test_continuous_integration_runs_the_command_of_the_readme():
    root = Path(__file__).parents[1]
    commands = [line for line in (root / "README.md").read_text().splitlines() if "-m pytest" in line]
    assert len(commands) == 1
    assert commands[0].startswith("python3 -m venv .venv && ")
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "README.md" in script.read_text()


def test_the_example_of_a_model_runs(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme.split("### Your own model")[1].split("```python\n")[1].split("```")[0]
    names = {"__name__": "example"}
    exec(compile(example, "README.md", "exec"), names)
    assert names["solution"].status is names["vbss"].Status.converged
    assert "FAILED" not in capsys.readouterr().out
    assert sorted(names["solution"].model.loc.round()) == [0, 6]


def test_the_names_in_the_readme_are_there_once_vbss_is_imported():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    files = {"network.vbss", "head.vbss", "fit.vbss", "run.vbss"}
    names = {name.removesuffix(".") for name in re.findall(r"(?<![\w/\".])vbss(?:\.\w+)+", readme)}
    names -= {name for name in names if name.split(".", 1)[1] in files}
    assert len(names) > 30 and "vbss.enhancement.train_voice" in names
    code = f"import vbss\nfor name in {sorted(names)}: eval(name)"
    subprocess.run([sys.executable, "-c", code], check=True)
