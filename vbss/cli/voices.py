"""Separation of speakers whose voices are known, behind `vbss separate --model vae --networks`."""

import argparse
from pathlib import Path
from typing import Any

from vbss.cli.arguments import Parser, changed_settings, in_options
from vbss.cli.inference import progress_bar
from vbss.cli.known_sources import check_ended, report_of, speech_of
from vbss.cli.reports import load_matplotlib, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

MODEL = "vae"
_ALGORITHM = "langevin"
_CHOSEN = ("--model", "--algorithm", "--iterations", "--seed")  # options of separate that count here
_OTHERS = {  # options of separate that are for other recordings, and their defaults
    "all_channels": False,
    "reference_microphone": 0,
    "block": 30.0,
    "overlap": 3.0,
    "preset": "best",
    "reverberant": False,
}
_OPTIONS = {"recording": "MIX", "trained": "--networks", "algorithm": "--algorithm", "max_steps": "--iterations"}


def add_voices(parser: Parser) -> None:
    """What speakers need whose voices are known."""
    group = parser.add_argument_group("speakers whose voices are known, --model vae")
    group.add_argument(
        "--networks", metavar="FILE,FILE",
        help="of each speaker, by vbss train --model vae --speaker; of a recording of one microphone. --sources is as "
        "many as there are, --algorithm langevin (default), mcem, mala, vem, point or encoder",
    )  # fmt: skip


def is_of_voices(arguments: argparse.Namespace) -> bool:
    """Whether the command is about speakers whose voices are known.

    Raises:
        InputError: if it is about that and something else.
    """
    if arguments.networks is None:
        if arguments.model == MODEL:
            raise InputError("--model vae needs --networks, a file of each speaker.")
        return False
    for option in ("network", "array", "calibration"):
        if getattr(arguments, option) is not None:
            raise InputError(f"--networks is for one microphone and voices that are known: leave out --{option}.")
    if arguments.model not in (None, MODEL):
        raise InputError(f"--model must be vae with --networks, got {arguments.model!r}.")
    for option, default in _OTHERS.items():
        if getattr(arguments, option) != default:
            told = "--reference" if option == "reference_microphone" else f"--{option}".replace("_", "-")
            raise InputError(f"--networks is for one microphone and voices that are known: leave out {told}.")
    for option in changed_settings(arguments):
        if option not in _CHOSEN:
            raise InputError(f"{option} is for recordings of several microphones: leave it out.")
    return True


def run_voices(arguments: argparse.Namespace) -> None:
    """`vbss separate` of voices that are known."""
    names = arguments.networks.split(",")
    if not all(name.strip() for name in names):
        raise InputError(f"--networks names no file between two commas, or none at all: {arguments.networks!r}.")
    paths = [Path(name) for name in names]
    if arguments.num_sources not in (None, len(paths)):
        raise InputError(f"--sources must be {len(paths)}, as many as --networks, got {arguments.num_sources}.")
    check_output_folder(arguments.out, **{"MIX": arguments.mix, "--networks": [str(path) for path in paths]})

    from vbss.audio import read_recording, write_recording
    from vbss.enhancement import separate_voices
    from vbss.plots import plot_enhancement

    trained = [speech_of(path, "--networks") for path in paths]
    recording = read_recording(*arguments.mix)
    if len(recording.samples) != 1:
        raise InputError(f"MIX must have one channel with --networks, got {len(recording.samples)}.")
    chosen: dict[str, Any] = {} if arguments.max_steps is None else {"max_steps": arguments.max_steps}
    load_matplotlib()
    with progress_bar("separating", arguments.quiet) as progress:
        try:
            found = separate_voices(
                recording,
                trained,
                algorithm=_ALGORITHM if arguments.algorithm is None else arguments.algorithm,
                seed=arguments.seed,
                progress=progress,
                **chosen,
            )
        except InputError as error:
            raise in_options(error, _OPTIONS) from error
    check_ended(found)
    print_warnings(found, arguments.quiet)
    files = [f"source_{number}.wav" for number in range(1, 1 + len(paths))]
    sources = [
        {"file": file, "network": str(path), "expected_sdr_db": float(ratio)}
        for file, path, ratio in zip(files, paths, found.expected_sdr[:, 0], strict=True)
    ]
    report = report_of(arguments.mix, recording, found, model=MODEL, seed=arguments.seed, sources=sources)
    with new_output_folder(arguments.out) as folder:
        for file, samples in zip(files, found.sources[:, 0], strict=True):
            write_recording(folder / file, samples, found.sample_rate)
        write_report(folder, report, plot_enhancement(recording, found))
    if not arguments.quiet:
        for source in sources:
            print(f"{arguments.out / source['file']}: expected SDR {source['expected_sdr_db']:.0f} dB")
