"""`vbss enhance`: a noisy recording in, its speech out."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, add_output, add_quiet, add_seed, at_least, in_options
from vbss.cli.inference import InferenceFailed, progress_bar
from vbss.cli.reports import load_matplotlib, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

if TYPE_CHECKING:
    from vbss.audio import Recording
    from vbss.enhancement import KnownSources

_OPTIONS = {
    "recording": "NOISY",
    "trained": "--network",
    "algorithm": "--algorithm",
    "max_steps": "--iterations",
    "num_noise_spectra": "--noise-spectra",
}


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "enhance",
        help="take speech out of noise",
        description="Take the speech out of a noisy recording, by a model of speech and without one of the noise.",
        epilog="Writes DIR/speech.wav, DIR/noise.wav, report.json and report.png. Steady noise suits the model; other "
        "voices are speech to it.",
    )
    parser.add_argument("noisy", metavar="NOISY", help="a sound file; of several channels each is taken by itself")
    parser.add_argument(
        "--network", type=Path, metavar="FILE",
        help="what speech may be, by vbss train --model vae; by default a network that comes with vbss, for 16 kHz",
    )  # fmt: skip
    parser.add_argument(
        "--algorithm", default="langevin",
        help="langevin, mcem, mala, vem, point or encoder: from the best to the quickest (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--iterations", "--max-steps", type=at_least(1), default=100, metavar="N", dest="max_steps",
                        help="steps of the algorithm (%(default)s)")  # fmt: skip
    parser.add_argument("--noise-spectra", "--num-noise-spectra", type=at_least(1), default=8, metavar="K",
                        dest="num_noise_spectra", help="of which the noise is made (%(default)s)")  # fmt: skip
    add_output(parser)
    add_quiet(parser)
    add_seed(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    inputs = {"NOISY": [arguments.noisy]} | ({} if arguments.network is None else {"--network": arguments.network})
    check_output_folder(arguments.out, **inputs)

    from vbss.audio import read_recording, write_recording
    from vbss.enhancement import TrainedSpeech, enhance, pretrained_speech
    from vbss.plots import plot_enhancement
    from vbss.storage import load

    recording = read_recording(arguments.noisy)
    if arguments.network is None:
        trained: Any = pretrained_speech()
    else:
        if not arguments.network.is_file():
            raise InputError(f"--network {str(arguments.network)!r} is no file.")
        trained = load(arguments.network)
        if not isinstance(trained, TrainedSpeech):
            raise InputError(
                f"--network {str(arguments.network)!r} holds a {type(trained).__name__}, no model of speech: make one "
                "by vbss train --model vae."
            )
    load_matplotlib()
    with progress_bar("enhancing", arguments.quiet) as progress:
        try:
            found = enhance(
                recording,
                trained,
                algorithm=arguments.algorithm,
                num_noise_spectra=arguments.num_noise_spectra,
                max_steps=arguments.max_steps,
                seed=arguments.seed,
                progress=progress,
            )
        except InputError as error:
            raise in_options(error, _OPTIONS) from error
    failed = [end for ends in found.solutions for end in ends if end.status.name == "nonfinite"]
    if failed:
        raise InferenceFailed(failed[0].status.explanation)
    print_warnings(found, arguments.quiet)
    with new_output_folder(arguments.out) as folder:
        write_recording(folder / "speech.wav", found.speech, found.sample_rate)
        write_recording(folder / "noise.wav", found.noise, found.sample_rate)
        write_report(folder, _report(arguments, recording, found), plot_enhancement(recording, found))
    if not arguments.quiet:
        print(f"{arguments.out / 'speech.wav'}: expected SDR {found.expected_sdr[0].mean():.0f} dB")


def _report(arguments: argparse.Namespace, recording: "Recording", found: "KnownSources") -> dict[str, Any]:
    return {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "network": None if arguments.network is None else str(arguments.network),
        "algorithm": found.algorithm,
        "num_noise_spectra": arguments.num_noise_spectra,
        "seed": arguments.seed,
        "warnings": list(found.warnings),
        "inference": [
            [
                {"status": solution.status.name, "num_steps": solution.num_steps, "elbo": solution.elbo.tolist()}
                for solution in blocks
            ]
            for blocks in found.solutions
        ],
        "input": {
            "files": [arguments.noisy],
            "sample_rate": recording.sample_rate,
            "channels": len(recording.samples),
            "seconds": recording.samples.shape[1] / recording.sample_rate,
        },
        "speech": {"file": "speech.wav", "expected_sdr_db": found.expected_sdr[0].tolist()},
        "noise": {"file": "noise.wav"},
        "seconds": found.seconds,
    }
