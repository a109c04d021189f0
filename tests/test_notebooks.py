import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stored_clean(path):
    for cell in code_cells(read(path)):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert not re.search(r"/(home|root|Users|tmp|work|mnt|opt)\b|[A-Z]:\\\\", path.read_text(encoding="utf-8"))


@pytest.fixture
def run(monkeypatch):
    """Executes a notebook with other parameters; its outputs, and what it printed."""

    def run(name, **small):
        notebook = read(FOLDER / name)
        (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        names = [name for line in parameters.source.splitlines() for name in line.split("=")[0].split(",")]
        assert {name.strip() for name in names} == set(small)
        parameters.source = "\n".join(f"{name} = {value!r}" for name, value in small.items())
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        # NumPyro's progress bars ask for a package that nothing here needs.
        monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
        outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
        streams = {kind: "" for kind in ("stdout", "stderr")}
        for output in outputs:
            if output.output_type == "stream":
                streams[output.name] += output.text
        assert not streams["stderr"]
        return outputs, streams["stdout"]

    return run


def images(outputs):
    return [kind for output in outputs for kind in output.get("data", {}) if kind == "image/png"]


def test_separate_a_recording(run):
    outputs, text = run("separate_a_recording.ipynb", seconds=2.0, sample_rate=8000, max_steps=3)
    assert len(images(outputs)) == 2
    sounds = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 3
    assert {"voice 1 is source", "voice 2 is source"} <= set(re.findall(r"voice \d is source", text))
    assert "4 channels, 16000 samples at 8000 Hz" in text


def test_define_your_own_model(run):
    outputs, text = run("define_your_own_model.ipynb", num_points=40, mcmc_draws=60, svi_steps=1500)
    assert len(images(outputs)) == 1
    number = r"(-?\d+\.\d+) \+- \d+\.\d+"
    rows = re.findall(rf"^(\w+) +(converged|max_steps) .* {number} +{number}$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == ["EM", "NaturalGradient", "SVI", "MCMC"]
    assert all(abs(float(slope) - 1.2) < 0.3 and abs(float(offset) + 0.5) < 0.4 for _, _, slope, offset in rows)
    assert "not quadratic in 'line'" in text
    assert "FAILED" not in text


def test_prove_an_update(run):
    _, text = run("prove_an_update.ipynb", num_points=20)
    right, wrong = text.split("failures:")[0].rsplit("block ", 1)
    assert "FAILED" not in right and re.search(r"component .*FAILED", wrong)
    assert "ByHand converged" in text or "ByHand max_steps" in text
    assert "Mistaken bound_decreased" in text


def test_two_ears(run):
    outputs, text = run("two_ears.ipynb", step=40.0, seconds=1.0, sample_rate=8000)
    assert len(images(outputs)) == 2
    assert {"voice 1 is source", "voice 2 is source"} <= set(re.findall(r"voice \d is source", text))
    assert "ms, about" in text


def test_separate_from_mixtures_alone(run):
    outputs, text = run("separate_from_mixtures_alone.ipynb", num_speakers=8, num_scenes=2, num_epochs=1, hidden_size=4)
    assert len(images(outputs)) == 2 and "nats for each bin" in text
    sounds = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 3


def test_one_speech_model_six_inferences(run):
    outputs, text = run(
        "one_speech_model_six_inferences.ipynb", seconds=1.0, max_steps=3, nuts_draws=6, metropolis_steps=200
    )
    assert len(images(outputs)) == 3
    sounds = [output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]
    assert len(sounds) == 7
    rows = re.findall(r"^(\w+) +(-?\d+\.\d) dB +\d+\.\d  max_steps$", text, re.MULTILINE)
    assert [name for name, _ in rows] == ["langevin", "mcem", "mala", "vem", "encoder", "point"]
    assert "the settings that vbss.enhance has: True" in text
    assert "NUTS and Metropolis differ by" in text
    assert "cannot be accepted each by itself" in text and "accepted as a whole: max_steps, 2 steps" in text
