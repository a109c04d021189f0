"""Sounds that are written block by block, so that a run that was stopped can go on."""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

_STATE = "state.npz"
_LARGEST_WAV = 2**32 - 2**16  # bytes; beyond, the same samples stand in an RF64 file


@dataclass(frozen=True)
class State:
    """What the next block needs to know.

    Attributes:
        identity: of the recording and of all that was asked.
        num_blocks: that are done.
        num_samples: that are written, of each source.
        tail: the last block's end, into which the next block's beginning fades.
        places: of the sources, from which the next block starts (`vbss.separation.analysis.Located.places`).
        energies: of what is written.
        blocks: what was found in each block, for JSON.
        seconds: that the blocks took.
    """

    identity: str
    num_blocks: int
    num_samples: int
    tail: Float[np.ndarray, "sources overlap"]
    places: Float[np.ndarray, "sources ..."]
    energies: Float[np.ndarray, " sources"]
    blocks: list[dict[str, Any]]
    seconds: float

    @classmethod
    def read(cls, folder: Path, identity: str) -> "State | None":
        """The state in a folder, if it is whole and of that identity."""
        try:
            with open(folder / _STATE, "rb") as file, np.load(file, allow_pickle=False) as stored:
                fields = dict(stored)
            for name in ("identity", "num_blocks", "num_samples", "seconds", "blocks"):
                fields[name] = fields[name].item()
            state = cls(**fields | {"blocks": json.loads(fields["blocks"])})
            lengths = [soundfile.info(path).frames for path in source_files(folder, len(state.energies))]
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, soundfile.SoundFileError):
            return None  # there is none, or it was cut off
        is_whole = state.identity == identity and min(lengths) >= state.num_samples
        return state if is_whole else None

    def write(self, folder: Path) -> None:
        """Take the place of the state before."""
        partial = folder / f".{_STATE}"
        arrays: dict[str, Any] = vars(self) | {"blocks": json.dumps(self.blocks)}
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, folder / _STATE)


def source_files(folder: Path, num_sources: int) -> tuple[Path, ...]:
    """Where the sources are."""
    return tuple(folder / f"source_{number}.wav" for number in range(1, num_sources + 1))


def clear(folder: Path) -> None:
    """Remove what an earlier run has left."""
    for path in (*folder.glob("source_*.wav"), folder / _STATE, folder / f".{_STATE}"):
        path.unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """All is written: no state is needed any more."""
    (folder / _STATE).unlink()


def append(
    folder: Path, samples: Float[np.ndarray, "sources samples"], sample_rate: int, before: int, total: int
) -> None:
    """Write samples after the first `before` of each source; what stood there is of a block that was cut off.

    Args:
        sample_rate: Hz.
        total: samples that a source will have in the end.
    """
    file_format = "WAV" if 4 * total < _LARGEST_WAV else "RF64"
    for path, sound in zip(source_files(folder, len(samples)), samples, strict=True):
        if before == 0:
            soundfile.write(path, sound, sample_rate, subtype="FLOAT", format=file_format)
            continue
        with soundfile.SoundFile(path, "r+") as file:
            file.truncate(before)
            file.seek(0, soundfile.SEEK_END)
            file.write(sound)
