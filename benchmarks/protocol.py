"""What a folder of results is of, so that no run goes on with those of another."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vbss.errors import InputError

_FILE = "protocol.json"


def check_protocol(folder: Path, **told: Any) -> None:
    """Write down what results depend on, or compare it with what an earlier run wrote.

    Args:
        folder: of the results; made if it is not there.
        told: what they depend on beside the version of vbss, of types that JSON has.

    Raises:
        InputError: if the folder holds results of something else.
    """
    told = json.loads(json.dumps(told | {"vbss": version("vbss")}))
    folder.mkdir(parents=True, exist_ok=True)
    asked = folder / _FILE
    if not asked.exists():
        asked.write_text(json.dumps(told) + "\n")
        return
    held = json.loads(asked.read_text())
    other = sorted(name for name in told | held if told.get(name) != held.get(name))
    if other:
        raise InputError(f"{str(folder)!r} holds results with another {', '.join(other)}: name another --out.")
