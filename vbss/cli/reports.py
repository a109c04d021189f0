"""What a report says of a result, and the folder that holds both."""

import json
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from vbss.output import REPORT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vbss.audio import Recording
    from vbss.audio.sound_files import SoundFiles
    from vbss.binaural import BinauralLocalization
    from vbss.enhancement import KnownSources
    from vbss.neural import NeuralSeparation
    from vbss.separation import Localization, LongSeparation, Separation


def load_matplotlib() -> None:
    """Import matplotlib in a thread of its own: inference leaves a core idle, and a picture follows it."""
    Thread(target=import_module, args=["matplotlib.backends.backend_agg"], daemon=True).start()


def print_warnings(
    result: "BinauralLocalization | KnownSources | Localization | LongSeparation | NeuralSeparation", quiet: bool
) -> None:
    """Say on stderr what the report says too."""
    if not quiet:
        for warning in result.warnings:
            print(f"vbss: warning: {warning}", file=sys.stderr)


def localization_report(
    files: list[str], recording: "Recording", microphone_positions: Any, result: "Localization"
) -> dict[str, Any]:
    """What is reported of a localisation, and of a separation too; angles in degrees from 0 to 360."""
    import numpy as np

    channels, samples = recording.samples.shape
    if result.azimuths is None or result.directions is None:
        sources = [{"direction_degrees": None, "direction_posterior": None} for _ in result.classes]
    else:
        grid = _degrees(result.azimuths)
        posteriors = np.asarray(result.direction_posterior, dtype=float).tolist()
        sources = [
            {
                "direction_degrees": direction,
                "direction_posterior": {"azimuths_degrees": grid, "probabilities": posterior},
            }
            for direction, posterior in zip(_degrees(result.directions), posteriors, strict=True)
        ]
    probabilities = result.number_probabilities
    return {
        **_method(result),
        "inference": [
            {
                "stage": stage,
                "model": type(solution.model).__name__,
                "status": solution.status.name,
                "num_steps": int(solution.num_steps),
                "elbo": np.asarray(solution.elbo, dtype=float).tolist(),
            }
            for stage, solution in result.solutions.items()
        ],
        "input": _input(files, recording.sample_rate, channels, samples, microphone_positions),
        "number_probabilities": None if probabilities is None else np.asarray(probabilities, float).tolist(),
        "sources": sources,
        "seconds": result.seconds,
    }


def separation_report(
    files: list[str], recording: "Recording", microphone_positions: Any, result: "Separation"
) -> dict[str, Any]:
    """What is reported of a separation; its files are named as `write_separation` does."""
    report = localization_report(files, recording, microphone_positions, result)
    report["reference_microphone"] = result.reference_microphone
    for number, (source, share) in enumerate(zip(report["sources"], result.energy_shares, strict=True), 1):
        source |= {"file": f"source_{number}.wav", "energy_share": float(share)}
        source["expected_sdr_db"] = None if result.expected_sdr is None else float(result.expected_sdr[number - 1])
    return report


def long_report(
    files: list[str], sound: "SoundFiles", microphone_positions: Any, result: "LongSeparation"
) -> dict[str, Any]:
    """What is reported of a separation in blocks: directions and qualities stand with each block."""
    return {
        **_method(result),
        "input": _input(files, sound.sample_rate, sound.num_channels, sound.num_samples, microphone_positions),
        "reference_microphone": result.reference_microphone,
        "sources": [
            {"file": path.name, "energy_share": share}
            for path, share in zip(result.sources, result.energy_shares.tolist(), strict=True)
        ],
        "blocks": [
            {
                "start_seconds": block.start,
                "stop_seconds": block.stop,
                "directions_degrees": None if block.directions is None else _degrees(block.directions),
                "energy_shares": block.energy_shares,
                "expected_sdr_db": block.expected_sdr,
                "statuses": block.statuses,
                "warnings": block.warnings,
            }
            for block in result.blocks
        ],
        "seconds": {"blocks": result.seconds},
    }


def _degrees(angles: Iterable[float | None]) -> list[float | None]:
    """Angles in rad as degrees from 0 to 360; what is not known stays so."""
    import numpy as np

    return [None if angle is None else round(float(np.degrees(angle)), 6) % 360 for angle in angles]


def _method(result: "Localization | LongSeparation") -> dict[str, Any]:
    """How the result came about, and what is to be doubted."""
    settings = result.settings
    shown = {"model", "algorithm", "precision"}
    if settings.sum_model is None:  # which alone has them
        shown |= {"num_components", "max_sum_steps"}
    return {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "model": settings.model if isinstance(settings.model, str) else repr(settings.model),
        "algorithm": settings.algorithm if isinstance(settings.algorithm, str) else repr(settings.algorithm),
        "precision": settings.precision,
        "settings": {name: value for name, value in vars(settings).items() if name not in shown},
        "warnings": list(result.warnings),
    }


def _input(
    files: list[str], sample_rate: int, channels: int, samples: int, microphone_positions: Any
) -> dict[str, Any]:
    """What was separated."""
    import numpy as np

    return {
        "files": files,
        "sample_rate": sample_rate,
        "channels": channels,
        "seconds": samples / sample_rate,
        "microphone_positions": None
        if microphone_positions is None
        else (np.asarray(microphone_positions, dtype=float).round(9) + 0.0).tolist(),
    }


def write_report(folder: Path, report: dict[str, Any], figure: "Figure") -> None:
    """Write `report.png` and, last, `report.json`."""
    figure.savefig(folder / "report.png", pil_kwargs={"compress_level": 1})  # a third of the time, a tenth larger
    (folder / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_separation(folder: Path, recording: "Recording", result: "Separation", report: dict[str, Any]) -> None:
    """Write the sources under the names in the report, and then the report and its picture."""
    import numpy as np

    from vbss.audio import write_recording
    from vbss.plots import plot_separation

    sounds = result.sources if result.images is None else result.images
    for source, samples in zip(report["sources"], np.asarray(sounds), strict=True):
        write_recording(folder / source["file"], samples, result.sample_rate)
    write_report(folder, report, plot_separation(recording, result))
