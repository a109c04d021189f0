"""The folder of results: it appears complete or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbss.errors import InputError

REPORT = "report.json"
_LONGEST_NAME = 200  # bytes; file systems take 255, and the folder has a longer name while it is written
_RESULT_NAMES = re.compile(r"report\.(json|png)|(mixture|speech|noise)\.wav|source_[0-9]+\.wav")


def check_output_folder(out: Path, **inputs: str | Path | list[str]) -> None:
    """Refuse a folder that cannot be made or replaced; call it before any work is done.

    A folder may be replaced if it is empty or holds an earlier result (regular files) and nothing else. `inputs` are
    files that are still to be read, under the names that the message gives them; those that do not exist are ignored.

    **Raises:** `InputError` if `out` is a file, holds anything else or one of `inputs`, is a mount point, or cannot be
    written.
    """
    out = out.resolve()
    for name, files in inputs.items():
        for file in files if isinstance(files, list) else [files]:
            if Path(file).exists() and Path(file).resolve().is_relative_to(out):
                raise InputError(
                    f"{name} {str(file)!r} lies inside the output folder {str(out)!r}, which would be replaced: "
                    "name another folder."
                )
    if len(os.fsencode(out.name)) > _LONGEST_NAME:
        raise InputError(f"output folder {str(out)!r} has too long a name: at most {_LONGEST_NAME} bytes.")
    if out.exists() and not out.is_dir():
        raise InputError(f"output folder {str(out)!r} is a file.")
    if os.path.ismount(out):
        raise InputError(f"output folder {str(out)!r} is where a file system is mounted: name a folder inside it.")
    if out.is_dir():
        names = sorted(path.name for path in out.iterdir())
        others = [name for name in names if not _is_result(out / name)]
        if names and (others or REPORT not in names):
            raise InputError(
                f"output folder {str(out)!r} holds {(others or names)[0]!r}, which is not an earlier result: "
                "name a new folder."
            )
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"output folder {str(out)!r} cannot be made: {str(parent)!r} is not a folder you may write to."
        )


def _is_result(path: Path) -> bool:
    return _RESULT_NAMES.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


@contextmanager
def new_output_folder(out: Path) -> Iterator[Path]:
    """A folder to write results to, which becomes `out` if the block succeeds and vanishes if it fails.

    **Raises:** `InputError` as `check_output_folder`; `OSError` if the file system refuses.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    # A plain mkdir, not tempfile's: the folder keeps the permissions that new folders have here.
    unique = secrets.token_hex(4)
    new, old = out.with_name(f".{out.name}.{unique}.new"), out.with_name(f".{out.name}.{unique}.old")
    try:
        new.mkdir()
        yield new
        _replace(out, new, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def resumable_output_folder(out: Path) -> Iterator[Path]:
    """As `new_output_folder`, but what was written stays when the block fails, and is there for the next attempt.

    Until then it lies beside `out`, under the name `.NAME.partial`. Only result files may be left in it at the end.

    **Raises:** `InputError` as `check_output_folder`, or if another process is writing the same results; `OSError` if
    the file system refuses.
    """
    from filelock import FileLock, Timeout

    out = out.resolve()
    check_output_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
    partial.mkdir(exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"output folder {str(out)!r} is being written by another process.") from error
    try:
        yield partial
        _replace(out, partial, old)
    finally:
        shutil.rmtree(old, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _replace(out: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `out`, which becomes `old`; on failure everything is as it was."""
    check_output_folder(out)  # again: the work took a while
    try:
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
