import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
SMALL = "seconds, sample_rate, max_steps = 2.0, 8000, 3"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def notebook():
    return read(FOLDER / "separate_a_recording.ipynb")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_clean(path):
    for cell in code_cells(read(path)):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert not re.search(r"/(home|root|Users|tmp|work|mnt|opt)\b|[A-Z]:\\\\", path.read_text(encoding="utf-8"))


def test_separate_a_recording_runs(notebook, monkeypatch):
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    names = re.findall(r"^\w+", parameters.source, re.MULTILINE)
    assert names == re.findall(r"\w+", SMALL.split(" = ")[0])
    parameters.source = SMALL
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # NumPyro's progress bars ask for a package that nothing here needs.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2
    sounds = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 3
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert {"voice 1 is source", "voice 2 is source"} <= set(re.findall(r"voice \d is source", text))
    assert "4 channels, 16000 samples at 8000 Hz" in text
    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
