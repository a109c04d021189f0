"""`vbss separate`: a recording in, its sources out."""

import argparse
from functools import partial
from typing import Any

from vbss.cli.arguments import (
    Parser,
    add_output,
    add_quiet,
    add_recording,
    add_settings,
    at_least,
    settings,
)
from vbss.cli.inference import infer
from vbss.cli.reports import load_matplotlib, print_warnings, separation_report, write_separation
from vbss.output import check_output_folder, new_output_folder


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "separate",
        help="separate and locate the sources of a recording",
        description="Separate and locate the sources of a multichannel recording.",
        epilog="Writes DIR/source_1.wav, ... as the reference microphone hears them, DIR/report.json and report.png.",
    )
    add_recording(parser)
    parser.add_argument(
        "--reference",
        "--reference-microphone",
        type=at_least(0),
        default=0,
        metavar="M",
        dest="reference_microphone",
        help="microphone whose sound is separated, counted from 0 (%(default)s)",
    )
    parser.add_argument(
        "--all-channels",
        action="store_true",
        help="write the sources as all microphones hear them, as the recording is",
    )
    add_output(parser)
    add_quiet(parser)
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from vbss.audio import read_microphone_positions, read_recording

    check_output_folder(arguments.out, **{"MIX": arguments.mix, "--array": arguments.array})
    positions = read_microphone_positions(arguments.array)
    recording = read_recording(*arguments.mix)

    from vbss.separation import separate

    load_matplotlib()
    run = partial(
        separate,
        recording,
        positions,
        arguments.num_sources,
        reference_microphone=arguments.reference_microphone,
        all_channels=arguments.all_channels,
        **settings(arguments),
    )
    separation = infer(run, "separating", arguments.quiet)
    print_warnings(separation, arguments.quiet)
    report = separation_report(arguments.mix, recording, positions, separation)
    with new_output_folder(arguments.out) as folder:
        write_separation(folder, recording, separation, report)
    if not arguments.quiet:
        for source in report["sources"]:
            ratio = source["expected_sdr_db"]
            quality = "" if ratio is None else f", expected SDR {ratio:.0f} dB"
            print(f"{arguments.out / source['file']}: direction {source['direction_degrees']:.0f} degrees{quality}")
