"""`vbss enhance`: a noisy recording in, its speech out."""

import argparse
from pathlib import Path
from typing import Any

from vbss.cli.arguments import Parser, add_output, add_quiet, add_seed, at_least, in_options
from vbss.cli.inference import progress_bar
from vbss.cli.known_sources import check_ended, report_of, speech_of
from vbss.cli.reports import load_matplotlib, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

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
        help="langevin, mcem, mala, vem, point, frozen or encoder (%(default)s)",
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
    from vbss.enhancement import enhance, pretrained_speech
    from vbss.plots import plot_enhancement

    recording = read_recording(arguments.noisy)
    trained = pretrained_speech() if arguments.network is None else speech_of(arguments.network, "--network")
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
    check_ended(found)
    print_warnings(found, arguments.quiet)
    report = report_of(
        [arguments.noisy],
        recording,
        found,
        network=None if arguments.network is None else str(arguments.network),
        num_noise_spectra=arguments.num_noise_spectra,
        seed=arguments.seed,
        speech={"file": "speech.wav", "expected_sdr_db": found.expected_sdr[0].tolist()},
        noise={"file": "noise.wav"},
    )
    with new_output_folder(arguments.out) as folder:
        write_recording(folder / "speech.wav", found.speech, found.sample_rate)
        write_recording(folder / "noise.wav", found.noise, found.sample_rate)
        write_report(folder, report, plot_enhancement(recording, found))
    if not arguments.quiet:
        has_sound = [bool(ends) for ends in found.solutions]
        print(f"{arguments.out / 'speech.wav'}: expected SDR {found.expected_sdr[0, has_sound].mean():.0f} dB")
