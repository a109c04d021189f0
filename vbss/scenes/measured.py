"""Measured impulse responses of a microphone array in real rooms."""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vbss.audio import read_microphone_positions, read_recording, resample
from vbss.errors import InputError
from vbss.scenes.corpus import read_table

_R3VIVAL_NAME = re.compile(r"abs(\d{3})_az(\d{3})_1\.5m_7ch_16k\.flac")
# Microphones 1 to 6 of R3VIVAL (front, back, right and left above, right and left below) on a sphere of 10 cm.
_R3VIVAL_POSITIONS = np.array([[1, 0, 0], [-1, 0, 0], [0, -1, 1], [0, 1, 1], [0, -1, -1], [0, 1, -1]], float)
_R3VIVAL_POSITIONS *= 0.05 / np.linalg.norm(_R3VIVAL_POSITIONS, axis=1, keepdims=True)


@dataclass(frozen=True)
class MeasuredResponses:
    """Impulse responses from some directions to an array, in one or more rooms.

    Attributes:
        folder: where they are.
        microphone_positions: m, x to the front (azimuth 0), y to the left.
        files: for every room, the file of every azimuth (degrees, counter-clockwise), relative to `folder`.
    """

    folder: Path
    microphone_positions: Float[np.ndarray, "microphones 3"]
    files: dict[str, dict[float, str]]

    @classmethod
    def read(cls, folder: str | Path) -> "MeasuredResponses":
        """The set of responses in `folder`.

        The folder holds `responses.csv` with the columns file (relative to the folder), azimuth_degrees (from the
        front, counter-clockwise) and room (any name), and `microphones.txt` with the position of each microphone, x y z
        in m. A file has one channel per microphone, in that order; further channels are ignored.

        Files of the R3VIVAL set, abs{000|050|100}_az{azimuth, clockwise}_1.5m_7ch_16k.flac, are known by their names:
        the rooms are the shares of absorbing walls, "000", "050" and "100", and the microphones are the six of the open
        array, without the one in the middle.

        Raises:
            InputError: if there is no such folder, it holds neither, or what it describes is wrong.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"there is no folder of responses {str(folder)!r}.")
        if (folder / "responses.csv").is_file():
            positions = read_microphone_positions(folder / "microphones.txt")
            rows = [
                (row["room"], _degrees(folder, row["azimuth_degrees"]), row["file"])
                for row in read_table(folder / "responses.csv", ("file", "azimuth_degrees", "room"))
            ]
        else:
            positions = _R3VIVAL_POSITIONS
            names = (_R3VIVAL_NAME.fullmatch(path.name) for path in folder.iterdir())
            rows = [(name[1], -float(name[2]) % 360, name[0]) for name in names if name is not None]
        if not rows:
            raise InputError(f"the folder of responses {str(folder)!r} holds neither responses.csv nor R3VIVAL files.")
        files: dict[str, dict[float, str]] = {}
        for room, azimuth, file in sorted(rows):
            if not (folder / file).is_file():
                raise InputError(f"responses.csv in {str(folder)!r} names the file {file!r}, which is not there.")
            files.setdefault(room, {})[azimuth] = file
        return cls(folder, positions, files)

    def response(self, room: str, azimuth: float, sample_rate: int) -> Float[np.ndarray, "microphones taps"]:
        """The impulse responses from one of the room's azimuths (degrees), float64.

        Raises:
            InputError: if the file cannot be read, has fewer channels than the array has microphones, or a channel
                is silent.
        """
        path = self.folder / self.files[room][azimuth]
        recording = resample(read_recording(path), sample_rate)
        if len(recording.samples) < len(self.microphone_positions):
            raise InputError(
                f"{str(path)!r} has {len(recording.samples)} channels for {len(self.microphone_positions)} microphones."
            )
        samples = recording.samples[: len(self.microphone_positions)].astype(np.float64)
        if not samples.any(axis=1).all():
            raise InputError(f"{str(path)!r} is silent in one of its channels.")
        return samples

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the geometry and of the files' names and sizes, by which a changed set is known."""
        digest = hashlib.sha256(self.microphone_positions.tobytes())
        for room, files in self.files.items():
            for azimuth, file in files.items():
                digest.update(f"{room}\0{azimuth}\0{file}\0{(self.folder / file).stat().st_size}\n".encode())
        return digest.hexdigest()


def _degrees(folder: Path, text: str) -> float:
    try:
        return float(text) % 360
    except ValueError:
        raise InputError(f"responses.csv in {str(folder)!r}: azimuth_degrees must be a number, got {text!r}.") from None
