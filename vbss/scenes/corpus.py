"""A folder of speech, by speakers."""

import csv
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vbss.audio.sound_files import SOUND_SUFFIXES
from vbss.errors import InputError, one_of, whole_number

_FEWEST_SPEAKERS = 2


@dataclass(frozen=True)
class SpeechCorpus:
    """The sound files below a folder and who speaks in them.

    Attributes:
        folder: where the corpus is.
        files: the files of every speaker, relative to `folder`; speakers and files in alphabetical order.
    """

    folder: Path
    files: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: str | Path, split: str | None = None) -> "SpeechCorpus":
        """The corpus in `folder`, or the speakers of one part of it.

        If the folder holds `manifest.csv` with the columns file and speaker, that says who speaks where; of a manifest
        with a column kind, the rows count whose kind begins with "speech". Else the files are those of the usual
        formats below the folder, and the speaker is the folder's first sub-folder that holds the file, as in
        LibriSpeech and VCTK. Files that lie in `folder` itself are of one speaker each.

        Args:
            folder: any folder of speech; WAV, FLAC, OGG, MP3, ...
            split: the part whose speakers are wanted, by `splits.csv` in the folder, with the columns speaker and
                split; by default all speakers.

        Raises:
            InputError: if there is no such folder, a table in it lacks a column or names a file that is not there,
                there is no such split, or fewer than two speakers are left, too few for a scene.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"there is no folder of speech {str(folder)!r}.")
        manifest = folder / "manifest.csv"
        speakers = _of_manifest(manifest) if manifest.is_file() else _of_folders(folder)
        if split is not None:
            wanted = _speakers_of_split(folder / "splits.csv", split)
            speakers = {file: speaker for file, speaker in speakers.items() if speaker in wanted}
        files: dict[str, list[str]] = {}
        for file, speaker in sorted(speakers.items()):
            files.setdefault(speaker, []).append(file)
        if len(files) < _FEWEST_SPEAKERS:
            part = "" if split is None else f" of the split {split!r}"
            raise InputError(
                f"the folder of speech {str(folder)!r} holds {len(speakers)} sound files{part}, of {len(files)} "
                f"speakers, and a scene needs at least {_FEWEST_SPEAKERS}. Without manifest.csv, every speaker must "
                "have a folder of his own directly in it."
            )
        return cls(folder, {speaker: tuple(files[speaker]) for speaker in sorted(files)})

    def held_out(self, every: int, *, at_least: int = _FEWEST_SPEAKERS) -> tuple["SpeechCorpus", "SpeechCorpus"]:
        """The corpus without every so-manieth speaker, and the corpus of those.

        Args:
            every: one speaker of so many is held out.
            at_least: how many are held out, and how many are left, at least.

        Raises:
            InputError: if there are not twice as many speakers.
        """
        every = whole_number("every", every, 2)
        if len(self.files) < 2 * at_least:
            raise InputError(
                f"the folder of speech {str(self.folder)!r} holds {len(self.files)} speakers; to hold out {at_least}, "
                f"at least {2 * at_least} are needed."
            )
        number = max(len(self.files) // every, at_least)
        speakers = list(self.files)
        chosen = {speakers[place * len(speakers) // number] for place in range(number)}
        kept, rest = ({s: f for s, f in self.files.items() if (s in chosen) is out} for out in (True, False))
        return SpeechCorpus(self.folder, rest), SpeechCorpus(self.folder, kept)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' speakers, names and sizes, by which a changed corpus is known."""
        digest = hashlib.sha256()
        for speaker, files in self.files.items():
            for file in files:
                digest.update(f"{speaker}\0{file}\0{(self.folder / file).stat().st_size}\n".encode())
        return digest.hexdigest()


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names its columns.

    Raises:
        InputError: if there is no such file, or one of `columns` is missing.
    """
    if not path.is_file():
        raise InputError(f"there is no table {str(path)!r} with the columns {', '.join(columns)}.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise InputError(f"{str(path)!r} has no column {missing[0]!r}; it must have {', '.join(columns)}.")
            table = list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(path)!r} is no table of comma-separated values ({error}).") from error
    for number, row in enumerate(table, 2):
        if None in row.values():
            raise InputError(f"{str(path)!r}, line {number}: fewer fields than the first line names.")
    return table


def _of_manifest(manifest: Path) -> dict[str, str]:
    """The speaker of every file."""
    speakers = {
        row["file"]: row["speaker"]
        for row in read_table(manifest, ("file", "speaker"))
        if row.get("kind", "speech").startswith("speech")
    }
    for file in speakers:
        if not (manifest.parent / file).is_file():
            raise InputError(f"{str(manifest)!r} names the file {file!r}, which is not there.")
    return speakers


def _of_folders(folder: Path) -> dict[str, str]:
    relative = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    return {path.as_posix(): path.parts[0] for path in relative if not any(part.startswith(".") for part in path.parts)}


def _speakers_of_split(path: Path, split: str) -> set[str]:
    rows = read_table(path, ("speaker", "split"))
    one_of("split", split, sorted({row["split"] for row in rows}))
    return {row["speaker"] for row in rows if row["split"] == split}
