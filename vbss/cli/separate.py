"""`vbss separate`: a recording in, its sources out."""

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import (
    OPTIONS,
    Parser,
    add_output,
    add_quiet,
    add_recording,
    add_separation,
    add_settings,
    in_options,
    microphone_positions,
    settings,
)
from vbss.cli.binaural import add_binaural, is_binaural, run_separate
from vbss.cli.inference import infer
from vbss.cli.neural import add_network, run_single, trained_separator
from vbss.cli.reports import (
    load_matplotlib,
    long_report,
    print_warnings,
    separation_report,
    write_report,
    write_separation,
)
from vbss.cli.voices import add_voices, is_of_voices, run_voices
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder, resumable_output_folder

if TYPE_CHECKING:
    from vbss.audio.sound_files import SoundFiles


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "separate",
        help="separate and locate the sources of a recording",
        description="Separate and locate the sources of a multichannel recording.",
        epilog="Writes DIR/source_1.wav, ... as the reference microphone hears them, DIR/report.json and report.png. "
        "A recording longer than a block is separated block by block, in memory that does not grow with its length; "
        "the same command, interrupted, goes on where it was.",
    )
    add_recording(parser, sources_required=False)
    add_binaural(parser)
    add_network(parser)
    add_voices(parser)
    add_separation(parser)
    add_output(parser)
    add_quiet(parser)
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if is_of_voices(arguments):
        run_voices(arguments)
        return
    if arguments.num_sources is None:
        raise InputError("--sources is needed: the number of sources, or auto.")
    if is_binaural(arguments):
        if arguments.network is not None:
            raise InputError("--network is for one microphone or an array, not for two ears: leave it out.")
        run_separate(arguments)
        return
    if arguments.network is not None and arguments.array is None:
        run_single(arguments)
        return

    from vbss.audio import read_recording
    from vbss.audio.sound_files import SoundFiles

    inputs = {"MIX": arguments.mix} | ({} if arguments.array is None else {"--array": arguments.array})
    check_output_folder(arguments.out, **inputs)
    positions = microphone_positions(arguments)
    sound = SoundFiles.open(*arguments.mix)
    if sound.num_samples > arguments.block * sound.sample_rate:
        if arguments.network is not None:
            raise InputError(f"--network with --array is for recordings of one block; --block is {arguments.block} s.")
        _run_long(arguments, positions, sound)
        return
    recording = read_recording(*arguments.mix)

    from vbss.separation import separate

    load_matplotlib()
    options = {"reference_microphone": arguments.reference_microphone, **settings(arguments)}
    if arguments.network is None:
        options["all_channels"] = arguments.all_channels
        run = partial(separate, recording, positions, arguments.num_sources, **options)
    else:
        run = _from_network(arguments, recording, positions, options)
    separation = infer(run, "separating", arguments.quiet)
    print_warnings(separation, arguments.quiet)
    report = separation_report(arguments.mix, recording, positions, separation)
    with new_output_folder(arguments.out) as folder:
        write_separation(folder, recording, separation, report)
    if not arguments.quiet:
        if separation.number_probabilities is not None:
            number = len(report["sources"])
            probability = separation.number_probabilities[number - 1]
            print(f"{number} source{'s' if number > 1 else ''}, with a probability of {probability:.2f}")
        for source in report["sources"]:
            direction, ratio = source["direction_degrees"], source["expected_sdr_db"]
            told = [] if direction is None else [f"direction {direction:.0f} degrees"]
            told.append(f"{100 * source['energy_share']:.0f} % of the energy")
            told += [] if ratio is None else [f"expected SDR {ratio:.0f} dB"]
            print(f"{arguments.out / source['file']}: {', '.join(told)}")


def _from_network(arguments: argparse.Namespace, recording: Any, positions: Any, options: dict[str, Any]) -> Any:
    from vbss.neural import separate_from_network

    if arguments.all_channels:
        raise InputError("--all-channels is not for a start by --network: leave one of them out.")
    trained = trained_separator(arguments)
    return partial(separate_from_network, recording, positions, trained, arguments.num_sources, **options)


def _run_long(arguments: argparse.Namespace, positions: Any, sound: "SoundFiles") -> None:
    """Block by block."""
    from tqdm import tqdm

    from vbss.plots import plot_long_separation
    from vbss.separation import separate_long

    if arguments.all_channels:
        raise InputError(f"--all-channels is for recordings of one block; --block is {arguments.block} s.")
    load_matplotlib()
    silent = arguments.quiet or not sys.stderr.isatty()
    with (
        resumable_output_folder(arguments.out) as folder,
        tqdm(desc="separating", unit="block", leave=False, disable=silent) as bar,
    ):

        def progress(done: int, blocks: int) -> None:
            bar.total = blocks
            bar.update(done - bar.n)

        try:
            separation = separate_long(
                arguments.mix,
                positions,
                arguments.num_sources,
                folder,
                block=arguments.block,
                overlap=arguments.overlap,
                reference_microphone=arguments.reference_microphone,
                progress=progress,
                **settings(arguments),
            )
        except InputError as error:
            raise in_options(error, OPTIONS) from error
        report = long_report(arguments.mix, sound, positions, separation)
        write_report(folder, report, plot_long_separation(separation))
    print_warnings(separation, arguments.quiet)
    if not arguments.quiet:
        for source in report["sources"]:
            print(f"{arguments.out / source['file']}: {100 * source['energy_share']:.0f} % of the energy")
