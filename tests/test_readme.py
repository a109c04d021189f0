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
