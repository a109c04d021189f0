"""Separation by a trained network, behind `vbss separate --network`."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import OPTIONS, Parser, changed_settings, in_options
from vbss.cli.reports import load_matplotlib, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

if TYPE_CHECKING:
    from vbss.audio import Recording
    from vbss.neural import NeuralSeparation, TrainedSeparator


def add_network(parser: Parser) -> None:
    """What a trained network needs."""
    group = parser.add_argument_group("a trained network")
    group.add_argument(
        "--network", type=Path, metavar="FILE",
        help="by vbss train: it separates a recording of one microphone; with --array, it says where the model of all "
        "microphones starts. For recordings of one block",
    )  # fmt: skip


def trained_separator(arguments: argparse.Namespace) -> "TrainedSeparator":
    """That of `--network`.

    Raises:
        InputError: if there is none in the file.
    """
    from vbss.neural import TrainedSeparator
    from vbss.storage import load

    if not arguments.network.is_file():
        raise InputError(f"--network {str(arguments.network)!r} is no file.")
    trained = load(arguments.network)
    if not isinstance(trained, TrainedSeparator):
        raise InputError(
            f"--network {str(arguments.network)!r} holds a {type(trained).__name__}, no separator: make one by vbss "
            "train."
        )
    return trained


def run_single(arguments: argparse.Namespace) -> None:
    """`vbss separate` of one microphone."""
    from vbss.audio import read_recording, write_recording

    if arguments.all_channels or arguments.reference_microphone:
        raise InputError("--network without --array is for one microphone: leave out --all-channels and --reference.")
    if names := changed_settings(arguments):
        raise InputError(f"{names[0]} is for recordings of several microphones: leave it out, or give --array.")
    check_output_folder(arguments.out, **{"MIX": arguments.mix, "--network": arguments.network})
    if arguments.num_sources == "auto":
        raise InputError("--sources must be a number with --network: counting needs several microphones (--array).")
    trained = trained_separator(arguments)
    recording = read_recording(*arguments.mix)
    if recording.samples.shape[1] > arguments.block * recording.sample_rate:
        raise InputError(f"--network is for recordings of one block; --block is {arguments.block} s.")

    from vbss.neural import separate_neural
    from vbss.plots import plot_neural_separation

    load_matplotlib()
    try:
        separation = separate_neural(recording, trained, arguments.num_sources)
    except InputError as error:
        raise in_options(error, OPTIONS) from error
    print_warnings(separation, arguments.quiet)
    report = _report(arguments, recording, separation)
    with new_output_folder(arguments.out) as folder:
        for source, samples in zip(report["sources"], separation.sources, strict=True):
            write_recording(folder / source["file"], samples, separation.sample_rate)
        write_report(folder, report, plot_neural_separation(recording, separation))
    if not arguments.quiet:
        for source in report["sources"]:
            print(f"{arguments.out / source['file']}: {100 * source['energy_share']:.0f} % of the energy")


def _report(arguments: argparse.Namespace, recording: "Recording", separation: "NeuralSeparation") -> dict[str, Any]:
    return {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "network": str(arguments.network),
        "analysis": {
            "sample_rate": separation.stft.sample_rate,
            "window_length": separation.stft.window_length,
            "hop_length": separation.stft.hop_length,
        },
        "warnings": list(separation.warnings),
        "input": {
            "files": arguments.mix,
            "sample_rate": recording.sample_rate,
            "channels": len(recording.samples),
            "seconds": recording.samples.shape[1] / recording.sample_rate,
        },
        "sources": [
            {"file": f"source_{place}.wav", "class": int(number), "energy_share": float(share)}
            for place, (number, share) in enumerate(zip(separation.classes, separation.energy_shares, strict=True), 1)
        ],
        "seconds": separation.seconds,
    }
