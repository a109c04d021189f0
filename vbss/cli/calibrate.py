"""`vbss calibrate`: what a head does to sound, learnt once and kept in a file."""

import argparse
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, add_quiet, add_seed, at_least, in_options
from vbss.errors import InputError

if TYPE_CHECKING:
    from vbss.audio import InterauralCues
    from vbss.binaural import Calibration

_OPTIONS = {
    "num_pieces": "--pieces",
    "seconds": "--seconds",
    "ridge": "--ridge",
    "sample_rate": "--sample-rate",
    "window": "--window",
    "hop": "--hop",
    "highest_phase": "--highest-phase",
}


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "calibrate",
        help="learn a head from its responses, or from recordings of known directions",
        description="Learn how the level and phase differences between two ears depend on the direction of a sound.",
        epilog="vbss separate MIX --calibration FILE --sources N --out DIR then separates and locates by them. A "
        "folder for --head has heads.csv (columns file, azimuth_degrees counter-clockwise, elevation_degrees) and one "
        "stereo response in each file; one for --recordings has recordings.csv, of the same columns, and one stereo "
        "recording of stationary sound in each file, best white noise.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--head", type=Path, metavar="FILE", help="responses of a head: .sofa, .mat (CIPIC), .npz, .csv, or a folder"
    )
    source.add_argument("--recordings", type=Path, metavar="FOLDER", help="recordings of known directions")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to keep the calibration")
    parser.add_argument(
        "--azimuths", type=float, nargs=2, default=(-90.0, 90.0), metavar=("LOW", "HIGH"),
        help="directions of --head to learn from, degrees, positive on the left (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--elevations", type=float, nargs=2, default=(-90.0, 90.0), metavar=("LOW", "HIGH"),
        help="degrees (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pieces", "--num-pieces", type=at_least(1), nargs="+", metavar="K", dest="num_pieces",
        help="affine pieces of the map, or growing numbers of them for --preset paper (one for 5 directions, or for 7 "
        "azimuths)",
    )  # fmt: skip
    parser.add_argument("--level-only", action="store_true", help="learn level differences alone, no phase differences")
    parser.add_argument("--sample-rate", type=at_least(8000), default=16000, metavar="HZ", help="Hz (%(default)s)")
    parser.add_argument("--window", type=float, default=0.064, metavar="S", help="analysis window, s (%(default)s)")
    parser.add_argument("--hop", type=float, default=0.016, metavar="S", help="from one to the next, s (%(default)s)")
    parser.add_argument(
        "--highest-phase", type=float, default=2000.0, metavar="HZ",
        help="up to which phase differences are learnt (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of white noise (%(default)s)")
    parser.add_argument(
        "--ridge", type=float, default=1e-3, metavar="X", help="weight of the prior of the map's slopes (%(default)s)"
    )
    add_quiet(parser)
    add_seed(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    out = arguments.out.resolve()
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"--out {str(arguments.out)!r} must name a file in an existing folder.")
    if out in (path.resolve() for path in (arguments.head, arguments.recordings) if path is not None):
        raise InputError(f"--out {str(arguments.out)!r} is what is to be read: name another file.")
    if out.exists() and not _is_saved(out):
        raise InputError(f"--out {str(arguments.out)!r} is there and no earlier calibration: name another file.")

    from vbss.audio import InterauralCues
    from vbss.storage import save

    try:
        cues = InterauralCues(
            arguments.sample_rate,
            arguments.window,
            arguments.hop,
            phase=not arguments.level_only,
            highest_phase=arguments.highest_phase,
        )
        calibration = _calibrated(arguments, cues)
    except InputError as error:
        raise in_options(error, _OPTIONS) from error
    save(out, calibration)
    if not arguments.quiet:
        count, size = calibration.directions.shape
        angles = "azimuths and elevations" if size == 2 else "azimuths"
        pieces = ", ".join(str(len(ppam.log_weights)) for ppam in calibration.maps)
        print(f"{arguments.out}: {count} {angles} of {calibration.name or 'a head'}, maps of {pieces} pieces")


def _is_saved(path: Path) -> bool:
    """Whether a file is one that `vbss.save` wrote."""
    from vbss.storage.layout import HEADER

    try:
        with zipfile.ZipFile(path) as archive:
            return HEADER in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def _calibrated(arguments: argparse.Namespace, cues: "InterauralCues") -> "Calibration":
    from math import radians

    from vbss.binaural import calibrate, calibrate_from_recordings
    from vbss.scenes import HeadResponses, read_calibration_recordings

    options = {"num_pieces": arguments.num_pieces, "ridge": arguments.ridge, "seed": arguments.seed}
    if arguments.recordings is not None:
        recordings = read_calibration_recordings(arguments.recordings)
        return calibrate_from_recordings(recordings, cues, name=arguments.recordings.name, **options)
    (left, right), (low, high) = ([radians(a) for a in pair] for pair in (arguments.azimuths, arguments.elevations))
    heads = HeadResponses.read(arguments.head)
    try:
        heads = heads.within((left, right), (low, high))
    except InputError as error:
        raise InputError(
            f"--azimuths and --elevations leave none of the {len(heads)} directions of {str(arguments.head)!r}."
        ) from error
    return calibrate(heads, cues, seconds=arguments.seconds, **options)
