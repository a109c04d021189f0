"""`vbss localize`: where the sources of a recording are."""

import argparse
from functools import partial
from typing import Any

from vbss.cli.arguments import Parser, add_output, add_quiet, add_recording, add_settings, settings
from vbss.cli.binaural import add_binaural, is_binaural, run_localize
from vbss.cli.inference import infer
from vbss.cli.reports import load_matplotlib, localization_report, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "localize",
        help="locate the sources of a recording",
        description="Find the directions of the sources of a recording, counter-clockwise from the array's x axis.",
        epilog="Prints one line per source; with --out, writes DIR/report.json and report.png.",
    )
    add_recording(parser)
    add_binaural(parser)
    add_output(parser, required=False)
    add_quiet(parser)
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if is_binaural(arguments):
        run_localize(arguments)
        return

    from vbss.audio import read_microphone_positions, read_recording

    if arguments.array is None:
        raise InputError("--array must be given for directions, or --calibration for a recording of two ears.")
    if arguments.out is not None:
        load_matplotlib()
        check_output_folder(arguments.out, **{"MIX": arguments.mix, "--array": arguments.array})
    positions = read_microphone_positions(arguments.array)
    recording = read_recording(*arguments.mix)

    from vbss.separation import localize

    run = partial(localize, recording, positions, arguments.num_sources, **settings(arguments))
    localization = infer(run, "localizing", arguments.quiet)
    print_warnings(localization, arguments.quiet)
    report = localization_report(arguments.mix, recording, positions, localization)
    if arguments.out is not None:
        from vbss.plots import plot_localization

        with new_output_folder(arguments.out) as folder:
            write_report(folder, report, plot_localization(recording, localization))
    if not arguments.quiet:
        for number, source in enumerate(report["sources"], 1):
            probability = max(source["direction_posterior"]["probabilities"])
            print(
                f"source {number}: direction {source['direction_degrees']:.0f} degrees, probability {probability:.2f}"
            )
