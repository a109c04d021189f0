"""The arguments that several commands share, under the names of the Python interface and shorter ones."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from vbss.errors import InputError

EXIT_BAD_INPUT = 2

_SETTINGS = (
    "model",
    "algorithm",
    "precision",
    "max_steps",
    "num_components",
    "max_sum_steps",
    "window",
    "hop",
    "num_directions",
    "loading",
    "seed",
)
# What the arguments of `vbss.separate`, of which its errors speak, are called here.
OPTIONS = {name: f"--{name}" for name in _SETTINGS} | {
    "recording": "MIX",
    "microphone_positions": "--array",
    "num_sources": "--sources",
    "reference_microphone": "--reference",
    "max_steps": "--iterations",
    "num_components": "--components",
    "max_sum_steps": "--sum-iterations",
    "block": "--block",
    "overlap": "--overlap",
    "num_directions": "--directions",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(fail(f"error: {message} (see {self.prog} --help)", EXIT_BAD_INPUT))


def fail(message: str, code: int) -> int:
    """Say on stderr why the command ends, in one line whatever the message holds; returns the code."""
    print("vbss:", *message.split(), file=sys.stderr)
    return code


def in_options(error: InputError, options: Mapping[str, str]) -> InputError:
    """The error with its subject, an argument of a Python function, called as the command line calls it."""
    subject, space, rest = str(error).partition(" ")
    return InputError(options.get(subject, subject) + space + rest)


def at_least(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers within limits."""

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


def add_output(parser: Parser, required: bool = True) -> None:
    """`--out`: the folder of results."""
    parser.add_argument(
        "--out",
        type=Path,
        required=required,
        metavar="DIR",
        help="folder for the results; it is made, or replaced if it holds nothing but earlier results",
    )


def add_quiet(parser: Parser) -> None:
    """`--quiet`: only errors are told."""
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def add_seed(parser: Parser) -> None:
    """`--seed`."""
    parser.add_argument(
        "--seed", type=at_least(0, 2**32 - 1), default=0, metavar="S", help="of all that is random (%(default)s)"
    )


def add_recording(parser: Parser, *, sources_required: bool = True) -> None:
    """The recording, its microphones and the number of sources."""
    parser.add_argument(
        "mix",
        metavar="MIX",
        nargs="+",
        help="a sound file with one channel per microphone, or one file for each microphone in order",
    )
    add_sources_and_array(parser, sources_required=sources_required)


def number_of_sources(text: str) -> int | str:
    """A parser of whole numbers from 1 up, and of "auto"."""
    return text if text == "auto" else at_least(1)(text)


def add_sources_and_array(parser: Parser, *, sources_required: bool = True) -> None:
    """What is known of the sources and the microphones."""
    parser.add_argument(
        "--sources", "--num-sources", type=number_of_sources, required=sources_required, metavar="N",
        dest="num_sources",
        help="number of sources; auto counts them, with --array",
    )  # fmt: skip
    parser.add_argument(
        "--array", "--microphone-positions", metavar="SPEC", dest="array",
        help="microphone positions: circular:M:DIAMETER or linear:M:SPACING (m), or a text file "
        "with x y or x y z (m) in one line per microphone; without it, sources have no directions and come by their "
        "energy",
    )  # fmt: skip


def add_separation(parser: Parser) -> None:
    """Which sounds are wanted, and how much of a recording is separated at a time."""
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
    parser.add_argument(
        "--block",
        type=float,
        default=30.0,
        metavar="S",
        help="a longer recording is separated in blocks of this length, s (%(default)s)",
    )
    parser.add_argument("--overlap", type=float, default=3.0, metavar="S", help="of two blocks, s (%(default)s)")


def microphone_positions(arguments: argparse.Namespace) -> Any:
    """Those of the array; None if none is named."""
    from vbss.audio import read_microphone_positions

    return None if arguments.array is None else read_microphone_positions(arguments.array)


def add_settings(parser: Parser) -> None:
    """How the recording is analysed: the fields of `vbss.Settings`, with its defaults."""
    group = parser.add_argument_group("how the recording is analysed")

    def add(*names: str, help: str, **options: Any) -> None:
        destination = names[-1].removeprefix("--").replace("-", "_")
        group.add_argument(*names, dest=destination, help=f"{help} (%(default)s)", **options)

    group.add_argument(
        "--model",
        help="cgmm+nmf (default with --array), cgmm+fastmnmf (faster, for recordings with little noise) or cgmm "
        "(fastest, one filter for the whole recording); cacgmm+nmf (default without --array), cacgmm+fastmnmf or "
        "cacgmm, for any array",
    )
    group.add_argument("--algorithm", help="em, or em-derived: the same updates, derived from the model's program (em)")
    add("--precision", default="float32", help="float32 or float64")
    group.add_argument(
        "--iterations", "--max-steps", type=at_least(1), metavar="N", dest="max_steps",
        help="at most so many steps of the mixture model (30)",
    )  # fmt: skip
    add("--components", "--num-components", type=at_least(1), default=16, metavar="N", help="spectra of each source")
    add(
        "--sum-iterations",
        "--max-sum-steps",
        type=at_least(1),
        default=60,
        metavar="N",
        help="at most so many steps of the model in which sources overlap",
    )
    add("--window", type=float, default=0.128, metavar="S", help="length of the analysis window, s")
    add("--hop", type=float, default=0.032, metavar="S", help="from one window to the next, s")
    add("--directions", "--num-directions", type=at_least(1), default=72, metavar="D", help="candidate azimuths")
    add(
        "--loading",
        type=float,
        default=1e-4,
        metavar="X",
        help="white noise that every bin is taken to carry; with very little, directions are led astray",
    )
    add_seed(parser)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was chosen of `vbss.Settings`, and its own defaults where nothing was."""
    from vbss.settings import Settings

    defaults = {field.name: field.default for field in fields(Settings)}
    chosen = {name: getattr(arguments, name) for name in _SETTINGS}
    return {name: defaults[name] if value is None else value for name, value in chosen.items()}


def changed_settings(arguments: argparse.Namespace) -> list[str]:
    """The options of `add_settings` that are not at their defaults, as they are called on the command line."""
    parser = Parser()
    add_settings(parser)
    defaults = parser.parse_args([])
    return [OPTIONS[name] for name in _SETTINGS if getattr(arguments, name) != getattr(defaults, name)]
