import os
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
