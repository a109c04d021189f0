"""`vbss batch`: many recordings in, the sources of each out, on one machine or several."""

import argparse
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b, file_digest
from importlib.metadata import version
from json import JSONDecodeError, loads
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import (
    OPTIONS,
    Parser,
    add_quiet,
    add_separation,
    add_settings,
    add_sources_and_array,
    fail,
    in_options,
    microphone_positions,
    settings,
)
from vbss.cli.batch_input import Entry, listed
from vbss.cli.batch_summary import clear_summaries, failed, successful, write_summary
from vbss.cli.inference import InferenceFailed
from vbss.cli.processes import add_processes, check_processes, joined
from vbss.cli.reports import load_matplotlib, long_report, separation_report, write_report, write_separation
from vbss.errors import InputError
from vbss.output import REPORT, check_output_folder, new_output_folder, resumable_output_folder

if TYPE_CHECKING:
    from vbss.separation.many import Outcome


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "batch",
        help="separate many recordings of one array",
        description="Separate and locate the sources of many multichannel recordings of one array. Those of similar "
        "length share what is compiled.",
        epilog="Writes DIR/NAME/ for each recording, as vbss separate does, and DIR/summary.csv. The same command, "
        "called again after it was stopped or with more recordings, keeps the results that are there. Several "
        "processes share the work, on machines that see the same folders or on one machine with several devices "
        "(CUDA_VISIBLE_DEVICES=I for process I): start all within five minutes, with the same arguments but for "
        "--process. Each writes DIR/summary.I.csv, and the last one DIR/summary.csv.",
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        type=Path,
        help="a folder, in which each sound file is a recording with one channel per microphone, or a CSV file with "
        "the column file, relative to itself, and perhaps name and sources",
    )
    add_sources_and_array(parser)
    add_separation(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results, new or not")
    add_quiet(parser)
    add_processes(parser)
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    check_processes(arguments)
    entries = listed(arguments.input, arguments.num_sources)
    _check_settings(arguments, entries)
    positions = microphone_positions(arguments)
    _make_folder(arguments, entries)
    process, num_processes = joined(arguments)

    from tqdm import tqdm

    from vbss.separation.many import Shape, share

    names = set(share({entry.name: Shape.of(entry.file) for entry in entries}, process, num_processes))
    own = [entry for entry in entries if entry.name in names]
    load_matplotlib()
    rows, silent = [], arguments.quiet or not sys.stderr.isatty()
    with tqdm(desc="separating", total=len(own), unit="recording", leave=False, disable=silent) as bar:
        for row in _rows(own, positions, arguments):
            if row["error"]:
                with tqdm.external_write_mode(file=sys.stderr):
                    fail(f"error: {row['name']}: {row['error']}", 1)
            rows.append(row)
            bar.update()
    write_summary(arguments.out, rows, process, num_processes)
    num_failed = sum(row["status"] == "failed" for row in rows)
    if num_failed:
        raise InferenceFailed(f"{num_failed} of {len(rows)} recordings failed.")
    if not arguments.quiet:
        kept, doubtful = sum(row["status"] == "kept" for row in rows), sum(bool(row["warnings"]) for row in rows)
        print(f"{arguments.out}: {len(rows)} recordings, {kept} of them separated earlier, {doubtful} with warnings")


def _check_settings(arguments: argparse.Namespace, entries: list[Entry]) -> None:
    """Refuse settings and numbers of sources that cannot be, before any work is done."""
    from vbss.settings import Settings

    try:
        chosen = Settings(**settings(arguments)).of_array(arguments.array is not None)
        for entry in entries:
            chosen.check_num_sources(entry.num_sources)
    except InputError as error:
        raise in_options(error, OPTIONS) from error


def _make_folder(arguments: argparse.Namespace, entries: list[Entry]) -> None:
    """Make the folder of all results, without earlier summaries; refuse it if what is read lies in it, or around it."""
    out = arguments.out.resolve()
    if arguments.input.is_dir() and out.is_relative_to(arguments.input.resolve()):
        raise InputError(
            f"output folder {str(out)!r} lies inside INPUT, where results would be taken for recordings: name another "
            "folder."
        )
    inputs = [arguments.input, *(entry.file for entry in entries)]
    inputs += [] if arguments.array is None else [Path(arguments.array)]
    for file in inputs:
        if file.exists() and file.resolve().is_relative_to(out):
            raise InputError(f"{str(file)!r} lies inside the output folder {str(out)!r}: name another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        clear_summaries(out)
    except OSError as error:
        raise InputError(f"output folder {str(out)!r} cannot be made or written to ({error}).") from error


def _rows(entries: list[Entry], positions: Any, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Separate what has no result yet; a line of the summary for each recording, as soon as its result is there."""
    from vbss.separation.many import separate_many

    whole: dict[str, Entry] = {}
    long: list[Entry] = []
    identities: dict[str, str] = {}
    for entry in entries:
        try:
            identities[entry.name] = identity = _identity(entry, positions, arguments)
            report = _earlier(arguments.out / entry.name, identity)
            if report is not None:
                yield successful(entry.name, "kept", report)
                continue
            check_output_folder(arguments.out / entry.name)
        except (ValueError, OSError) as error:
            yield failed(entry.name, error)
            continue
        if _is_long(entry, arguments.block):
            long.append(entry)
        else:
            whole[entry.name] = entry

    outcomes = separate_many(
        {name: entry.file for name, entry in whole.items()},
        positions,
        {name: entry.num_sources for name, entry in whole.items()},
        reference_microphone=arguments.reference_microphone,
        all_channels=arguments.all_channels,
        **settings(arguments),
    )
    for outcome in outcomes:
        yield _row(_write, whole[outcome.name], outcome, positions, identities[outcome.name], arguments)
    for entry in long:
        yield _row(_separate_long, entry, positions, identities[entry.name], arguments)


def _row(work: Callable[..., dict[str, Any]], entry: Entry, *others: Any) -> dict[str, Any]:
    """The line of a recording of which `work` makes the report, or fails."""
    try:
        return successful(entry.name, "done", work(entry, *others))
    except InputError as error:
        return failed(entry.name, in_options(error, OPTIONS | {"recording": "recording"}))
    except (ValueError, OSError, MemoryError, InferenceFailed) as error:
        return failed(entry.name, error)


def _write(
    entry: Entry, outcome: "Outcome", positions: Any, identity: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Write what came of a recording, or raise why nothing did; the report."""
    recording, separation = outcome.recording, outcome.separation
    if outcome.error is not None:
        raise outcome.error
    assert recording is not None and separation is not None
    if separation.solution.status.name == "nonfinite":
        raise InferenceFailed(separation.solution.status.explanation)
    report = separation_report([str(entry.file)], recording, positions, separation) | {"identity": identity}
    with new_output_folder(arguments.out / entry.name) as folder:
        write_separation(folder, recording, separation, report)
    return report


def _separate_long(entry: Entry, positions: Any, identity: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Separate a recording block by block, and write what came of it; the report."""
    from vbss.audio.sound_files import SoundFiles
    from vbss.plots import plot_long_separation
    from vbss.separation import separate_long

    if arguments.all_channels:
        raise InputError(f"--all-channels is for recordings of one block; --block is {arguments.block} s.")
    with resumable_output_folder(arguments.out / entry.name) as folder:
        separation = separate_long(
            entry.file,
            positions,
            entry.num_sources,
            folder,
            block=arguments.block,
            overlap=arguments.overlap,
            reference_microphone=arguments.reference_microphone,
            **settings(arguments),
        )
        report = long_report([str(entry.file)], SoundFiles.open(entry.file), positions, separation)
        report["identity"] = identity
        write_report(folder, report, plot_long_separation(separation))
    return report


def _is_long(entry: Entry, block: float) -> bool:
    from vbss.audio.sound_files import SoundFiles

    try:
        sound = SoundFiles.open(entry.file)
    except InputError:  # which is told when it is read
        return False
    return sound.num_samples > block * sound.sample_rate


def _identity(entry: Entry, positions: Any, arguments: argparse.Namespace) -> str:
    """A hash of all that a result depends on."""
    with open(entry.file, "rb") as file:
        content = file_digest(file, "blake2b").hexdigest()
    where = None if positions is None else positions.tolist()
    how = (arguments.reference_microphone, arguments.all_channels, arguments.block, arguments.overlap)
    asked = (content, version("vbss"), entry.num_sources, where, how, sorted(settings(arguments).items()))
    return blake2b(repr(asked).encode(), digest_size=16).hexdigest()


def _earlier(folder: Path, identity: str) -> dict[str, Any] | None:
    """The report of an earlier result that would be the same now; None if there is none."""
    try:
        report = loads((folder / REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(report, dict) or report.get("identity") != identity:
        return None
    return report if all((folder / source["file"]).is_file() for source in report["sources"]) else None
