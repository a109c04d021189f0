"""Arrays kept in a folder under a hash of what they were made from."""

import hashlib
import json
import os
import secrets
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vbss.errors import InputError

# NumPy parses headers by `ast`, which CPython 3.11 does not bear in several threads at once (gh-106905).
_ONE_AT_A_TIME = threading.Lock()


def cache_file(folder: str | Path, origin: dict[str, Any]) -> Path:
    """The file, there or not, of what is made from `origin`, which JSON can hold; the folder is made.

    Raises:
        InputError: if the folder cannot be made.
    """
    name = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} of the cache cannot be made ({error}).") from error
    return Path(folder) / f"{name[:32]}.npz"


def read_arrays(file: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of these names in a file; `None` if there is no file or it is broken."""
    try:
        # Opened here, because NumPy leaves a broken file open.
        with _ONE_AT_A_TIME, open(file, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, EOFError, KeyError, ValueError, SystemError, zipfile.BadZipFile):
        return None


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to a file, which appears complete or not at all."""
    temporary = file.with_name(f".{file.stem}.{secrets.token_hex(8)}.npz")
    try:
        np.savez(temporary, allow_pickle=False, **arrays)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
