"""The command line: `vbss separate` for recordings, `vbss demo` for a scene of its own.

Heavy imports stand inside the functions, so that `vbss --help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder, write_results

if TYPE_CHECKING:
    from vbss.audio import Recording
    from vbss.separation import Separation

EXIT_INFERENCE_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_OPTIONS = {  # what the arguments of `separate` are called here
    "recording": "MIX",
    "microphone_positions": "--array",
    "num_sources": "--sources",
    "reference_microphone": "--reference",
    "window": "--window",
    "hop": "--hop",
}


class InferenceFailed(Exception):
    """Inference ended without a usable posterior."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own arguments) and return the exit code.

    0: done. 1: inference failed or memory ran out. 2: the input is wrong. 130: interrupted. Unless it is 0, one line
    on stderr says why, and nothing was written.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except SystemExit as stop:  # argparse, after --help or a usage error
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except InferenceFailed as error:
        return _fail(f"error: {error}", EXIT_INFERENCE_FAILED)
    except MemoryError as error:
        return _fail(f"error: out of memory. {error}", EXIT_INFERENCE_FAILED)
    except (ValueError, OSError) as error:
        return _fail(f"error: {error}", EXIT_BAD_INPUT)
    return 0


def _fail(message: str, code: int) -> int:
    print("vbss:", *message.split(), file=sys.stderr)  # one line, whatever the message holds
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_fail(f"error: {message} (see {self.prog} --help)", EXIT_BAD_INPUT))


def _at_least(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            limits = f"from {minimum} " + ("up" if maximum is None else f"to {maximum}")
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got {text!r}")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vbss", description="Variational Bayesian separation and localisation of sound sources.")
    parser.add_argument("--version", action="version", version=f"vbss {version('vbss')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    output = _Parser(add_help=False)
    output.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the results; it is made, or replaced if it holds nothing but earlier results",
    )
    output.add_argument(
        "--seed", type=_at_least(0, 2**32 - 1), default=0, metavar="S", help="of the random start (%(default)s)"
    )

    separate = commands.add_parser(
        "separate",
        parents=[output],
        help="separate and locate the sources of a recording",
        description="Separate and locate the sources of a multichannel recording.",
        epilog="Writes DIR/source_1.wav, ... as the reference microphone hears them, and DIR/report.json.",
    )
    separate.add_argument("mix", metavar="MIX", help="sound file with one channel per microphone")
    separate.add_argument("--sources", type=_at_least(1), required=True, metavar="N", help="number of sources")
    separate.add_argument(
        "--array",
        required=True,
        metavar="SPEC",
        help="microphone positions: circular:M:DIAMETER or linear:M:SPACING (m), or a text file "
        "with x y or x y z (m) in one line per microphone",
    )
    separate.add_argument(
        "--reference",
        type=_at_least(0),
        default=0,
        metavar="M",
        help="microphone whose sound is separated, counted from 0 (%(default)s)",
    )
    separate.add_argument(
        "--iterations",
        type=_at_least(1),
        default=30,
        metavar="N",
        help="at most so many EM steps (%(default)s)",
    )
    separate.add_argument(
        "--window",
        type=float,
        default=0.064,
        metavar="S",
        help="length of the analysis window, s (%(default)s)",
    )
    separate.add_argument(
        "--hop", type=float, default=0.016, metavar="S", help="from one window to the next, s (%(default)s)"
    )
    separate.set_defaults(run=_separate)

    demo = commands.add_parser(
        "demo",
        parents=[output],
        help="make a scene, separate it and compare with the truth",
        description="Simulate two voices in a room, separate the recording and compare with the truth.",
        epilog="Writes what separate writes, and DIR/mixture.wav.",
    )
    demo.set_defaults(run=_demo)
    return parser


def _separate(arguments: argparse.Namespace) -> None:
    from vbss.audio import read_microphone_positions, read_recording

    check_output_folder(arguments.out, **{"MIX": arguments.mix, "--array": arguments.array})
    positions = read_microphone_positions(arguments.array)
    recording = read_recording(arguments.mix)
    separation = _infer(
        recording,
        positions,
        arguments.sources,
        reference_microphone=arguments.reference,
        window=arguments.window,
        hop=arguments.hop,
        max_steps=arguments.iterations,
        seed=arguments.seed,
    )
    report = _report(arguments.mix, recording, separation)
    with new_output_folder(arguments.out) as folder:
        write_results(folder, separation, report)
    for source in report["sources"]:
        print(f"{arguments.out / source['file']}: direction {source['direction_degrees']:.0f} degrees")


def _demo(arguments: argparse.Namespace) -> None:
    import numpy as np

    from vbss.audio import Recording, write_recording
    from vbss.metrics import signal_to_distortion_ratio
    from vbss.scenes import demo_scene

    check_output_folder(arguments.out)
    scene = demo_scene(arguments.seed)
    recording = Recording(scene.mixture, scene.sample_rate)
    separation = _infer(recording, scene.microphone_positions, len(scene.images), seed=arguments.seed)
    report = _report("mixture.wav", recording, separation)

    images, heard = scene.images[:, 0], scene.mixture[0]
    before, _ = signal_to_distortion_ratio(images, np.stack([heard] * len(images)))
    after, order = signal_to_distortion_ratio(images, np.asarray(separation.sources))

    with new_output_folder(arguments.out) as folder:
        write_recording(folder / "mixture.wav", recording.samples, recording.sample_rate)
        write_results(folder, separation, report)
    for voice, estimate in enumerate(order):
        source = report["sources"][estimate]
        true_direction = np.degrees(scene.azimuths[voice]) % 360
        print(
            f"{arguments.out / source['file']}: voice {voice + 1}, "
            f"direction {source['direction_degrees']:.0f} degrees (true {true_direction:.0f}), "
            f"SDR {after[voice]:.1f} dB (in the mixture {before[voice]:.1f})"
        )


def _infer(recording: "Recording", microphone_positions: Any, num_sources: int, **options: Any) -> "Separation":
    """`separate` with a progress bar; what it returns can be written."""
    from tqdm import tqdm

    from vbss.separation import separate

    with tqdm(desc="separating", unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(step: int, max_steps: int, elbo: float) -> None:
            bar.total = max_steps
            bar.set_postfix(elbo=f"{elbo:.6g}", refresh=False)
            bar.update(step - bar.n)

        try:
            separation = separate(recording, microphone_positions, num_sources, progress=progress, **options)
        except InputError as error:
            subject, space, rest = str(error).partition(" ")
            raise InputError(_OPTIONS.get(subject, subject) + space + rest) from error

    solution = separation.solution
    if solution.status.name == "interrupted":
        raise KeyboardInterrupt
    if solution.status.name == "nonfinite":
        raise InferenceFailed(solution.status.explanation)
    return separation


def _warnings(recording: "Recording", separation: "Separation") -> Iterator[str]:
    """Reasons to doubt a separation."""
    import numpy as np

    if separation.solution.status.name == "bound_decreased":
        yield separation.solution.status.explanation
    scaled = recording.samples / np.abs(recording.samples).max()
    power = np.mean(np.square(scaled, dtype=np.float64), axis=1)
    for channel in np.flatnonzero(power < 1e-6 * power.max()):
        yield f"channel {channel} (counted from 0) is more than 60 dB below the loudest: is the microphone connected?"
    probabilities = np.max(separation.direction_posterior, axis=1)
    for source, probability in enumerate(probabilities, 1):
        if probability < 0.5:
            yield f"the direction of source {source} is uncertain: the most probable one has {probability:.2f}."
    for first, second in combinations(range(len(probabilities)), 2):
        if separation.directions[first] == separation.directions[second]:
            yield f"sources {first + 1} and {second + 1} share one direction: they may be one source."


def _report(file: str, recording: "Recording", separation: "Separation") -> dict[str, Any]:
    """What the report says of a separation; a doubtful one is said on stderr as well."""
    import numpy as np

    solution = separation.solution
    warnings = list(_warnings(recording, separation))
    for warning in warnings:
        print(f"vbss: warning: {warning}", file=sys.stderr)

    channels, samples = recording.samples.shape
    grid = (np.degrees(np.asarray(separation.azimuths, dtype=float)).round(6) % 360).tolist()
    directions = (np.degrees(np.asarray(separation.directions, dtype=float)).round(6) % 360).tolist()
    posteriors = np.asarray(separation.direction_posterior, dtype=float).tolist()
    shares = np.asarray(separation.energy_shares, dtype=float).tolist()
    sources = [
        {
            "file": f"source_{number}.wav",
            "direction_degrees": direction,
            "direction_posterior": {"azimuths_degrees": grid, "probabilities": posterior},
            "energy_share": share,
        }
        for number, (direction, posterior, share) in enumerate(zip(directions, posteriors, shares, strict=True), 1)
    ]
    return {
        "schema_version": 1,
        "vbss_version": version("vbss"),
        "model": "lda-cgmm",
        "algorithm": "em",
        "status": solution.status.name,
        "warnings": warnings,
        "num_steps": int(solution.num_steps),
        "elbo": np.asarray(solution.elbo, dtype=float).tolist(),
        "input": {
            "file": file,
            "sample_rate": recording.sample_rate,
            "channels": channels,
            "seconds": samples / recording.sample_rate,
        },
        "sources": sources,
        "seconds": {stage: float(seconds) for stage, seconds in separation.seconds.items()},
    }
