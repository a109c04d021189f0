"""The recordings that `vbss batch` is to separate: those of a folder, or of a table."""

from argparse import ArgumentTypeError
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vbss.cli.arguments import number_of_sources
from vbss.cli.batch_summary import is_summary
from vbss.errors import InputError


class Entry(NamedTuple):
    """A recording.

    Attributes:
        name: of the folder of its result, below that of all results.
        file: with one channel per microphone.
        num_sources: how many, or "auto".
    """

    name: str
    file: Path
    num_sources: int | str


def listed(path: Path, num_sources: int | str) -> list[Entry]:
    """The recordings, in the order of their names.

    Args:
        path: of a folder, in which and below which the sound files are looked for, hidden ones and the sources that
            `vbss simulate` writes beside a mixture excepted; or of a CSV file with the column file, relative to itself,
            and perhaps name and sources.
        num_sources: where the table says nothing else.

    Raises:
        InputError: if there is nothing, a table lacks the column or names a file that is not there, or the names cannot
            be folders of their own.
    """
    from vbss.audio.sound_files import SOUND_SUFFIXES

    if path.is_dir():
        relative = sorted(file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in SOUND_SUFFIXES)
        entries = [
            Entry(file.with_suffix("").as_posix(), path / file, num_sources)
            for file in relative
            if not any(part.startswith(".") for part in file.parts)
            and (path / file).is_file()
            and not _is_truth(path / file)
        ]
        if not entries:
            raise InputError(f"the folder {str(path)!r} holds no sound files.")
    elif path.suffix.lower() in SOUND_SUFFIXES:
        raise InputError(f"{str(path)!r} must be a folder or a table of recordings; vbss separate takes one recording.")
    elif path.is_file():
        entries = _of_table(path, num_sources)
    else:
        raise InputError(f"there is no folder or table of recordings {str(path)!r}.")
    _check_names(entries)
    return sorted(entries)


def _is_truth(file: Path) -> bool:
    """Whether it is what `vbss simulate` tells of a scene, no recording."""
    return file.name.startswith("source_") and (file.parent / "scene.json").is_file()


def _of_table(path: Path, num_sources: int | str) -> list[Entry]:
    from vbss.scenes.corpus import read_table

    rows = read_table(path, ("file",))
    if not rows:
        raise InputError(f"{str(path)!r} names no recordings.")
    entries = []
    for row in rows:
        file, sources = path.parent / row["file"], row.get("sources")
        if not file.is_file():
            raise InputError(f"{str(path)!r} names the file {row['file']!r}, which is not there.")
        try:
            number = number_of_sources(sources) if sources else num_sources
        except ArgumentTypeError as error:
            raise InputError(f"{str(path)!r}: sources of {row['file']!r} {error}.") from error
        entries.append(Entry(row.get("name") or Path(row["file"]).with_suffix("").as_posix(), file, number))
    return entries


def _check_names(entries: Iterable[Entry]) -> None:
    files: dict[PurePosixPath, Path] = {}
    for name, file, _ in entries:
        path = PurePosixPath(name)
        is_plain = bool(path.parts) and not path.is_absolute() and not any(part.startswith(".") for part in path.parts)
        if not is_plain or is_summary(path.parts[0]):
            raise InputError(
                f"the result of {str(file)!r} cannot be in a folder called {name!r}: a table can name it otherwise, in "
                "its column name."
            )
        if path in files:
            raise InputError(f"{str(files[path])!r} and {str(file)!r} are two recordings of one name, {name!r}.")
        files[path] = file
    for path, file in files.items():
        outer = next((parent for parent in path.parents if parent in files), None)
        if outer is not None:
            raise InputError(
                f"{str(file)!r} has the name {str(path)!r}, which lies inside that of {str(files[outer])!r}: a table "
                "can name them otherwise, in its column name."
            )
