"""Results on disk: one JSON file for each system on each scene, which is computed once."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from vbss.scenes import Scene


class Records:
    """Records in a folder, as FOLDER/CONDITION/SYSTEM/INDEX.json.

    Each belongs to a scene, by its fingerprint, and to a system, by its identity; a record of another scene or of
    another identity (older settings, say) is as good as none.

    Attributes:
        folder: where they are; made when the first is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def finished(self, condition: str, system: str, index: int, scene: str, identity: dict[str, Any]) -> bool:
        """Whether there is the record of a scene."""
        record = self._read(self._path(condition, system, index), identity)
        return record is not None and record["scene"] == scene

    def write(
        self, condition: str, system: str, index: int, scene: str, identity: dict[str, Any], result: dict[str, Any]
    ) -> None:
        """Store a record; it appears completely or not at all."""
        path = self._path(condition, system, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        record = {"scene": scene, "identity": identity, **result}
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def of(self, condition: str, system: str, identity: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """All records of a system under a condition, by the index of the scene."""
        paths = sorted((self.folder / condition / system).glob("*.json"))
        records = {int(path.stem): self._read(path, identity) for path in paths}
        return {index: record for index, record in records.items() if record is not None}

    def _path(self, condition: str, system: str, index: int) -> Path:
        return self.folder / condition / system / f"{index:04d}.json"

    @staticmethod
    def _read(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The record of a file, or nothing if there is none, it is broken or has another identity."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        # As JSON gives it back: what was a tuple is a list there.
        return record if record["identity"] == json.loads(json.dumps(identity)) else None


def fingerprint(scene: Scene) -> str:
    """Of all of a scene that a result depends on."""
    digest = hashlib.sha256()
    digest.update(str(scene.sample_rate).encode())
    for array in (scene.mixture, scene.images, scene.microphone_positions, scene.azimuths):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
