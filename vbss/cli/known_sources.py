"""What `vbss enhance` and `vbss separate --networks` share: networks from files, and what a report says of a result."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.inference import InferenceFailed
from vbss.errors import InputError

if TYPE_CHECKING:
    from vbss.audio import Recording
    from vbss.enhancement import KnownSources, TrainedSpeech


def speech_of(path: Path, option: str) -> "TrainedSpeech":
    """The model of speech that a file holds.

    Raises:
        InputError: if there is none.
    """
    from vbss.enhancement import TrainedSpeech
    from vbss.storage import load

    if not path.is_file():
        raise InputError(f"{option} {str(path)!r} is no file.")
    trained = load(path)
    if not isinstance(trained, TrainedSpeech):
        raise InputError(
            f"{option} {str(path)!r} holds a {type(trained).__name__}, no model of speech: make one by vbss train "
            "--model vae."
        )
    return trained


def check_ended(found: "KnownSources") -> None:
    """Raise InferenceFailed where the inference of a block ended in infinite or nan values."""
    failed = [end for ends in found.solutions for end in ends if end.status.name == "nonfinite"]
    if failed:
        raise InferenceFailed(failed[0].status.explanation)


def report_of(files: list[str], recording: "Recording", found: "KnownSources", **more: Any) -> dict[str, Any]:
    """What a report says of either command's result."""
    return {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "algorithm": found.algorithm,
        **more,
        "warnings": list(found.warnings),
        "inference": [
            [
                {"status": solution.status.name, "num_steps": solution.num_steps, "elbo": solution.elbo.tolist()}
                for solution in blocks
            ]
            for blocks in found.solutions
        ],
        "input": {
            "files": files,
            "sample_rate": recording.sample_rate,
            "channels": len(recording.samples),
            "seconds": recording.samples.shape[1] / recording.sample_rate,
        },
        "seconds": found.seconds,
    }
