"""Separation and localisation of a recording of two ears, behind `vbss separate` and `vbss localize`."""

import argparse
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import OPTIONS, Parser
from vbss.cli.binaural_reports import binaural_report
from vbss.cli.inference import infer
from vbss.cli.reports import load_matplotlib, print_warnings, write_report
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

if TYPE_CHECKING:
    from vbss.binaural import BinauralLocalization, Calibration

_MODELS = ("vessl", "messl")


def add_binaural(parser: Parser) -> None:
    """What a recording of two ears needs."""
    group = parser.add_argument_group("a recording of two ears (left, right)")
    group.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help="of the head, by vbss calibrate; sources then have azimuth and elevation (model vessl+nmf, or vessl for "
        "masks alone). Without one, --model messl+nmf or messl finds delays between the ears",
    )  # fmt: skip
    group.add_argument(
        "--reverberant", action="store_true", help="the recording is of a room: trust the beginnings of sounds (vessl)"
    )
    group.add_argument(
        "--preset", choices=("best", "paper"), default="best", help="how vessl is inferred (%(default)s)"
    )


def is_binaural(arguments: argparse.Namespace) -> bool:
    """Whether the command is about two ears, not an array.

    Raises:
        InputError: if it is about both.
    """
    named = arguments.model is not None and arguments.model.partition("+")[0] in _MODELS
    if (named or arguments.calibration is not None) and arguments.array is not None:
        what = "--calibration" if arguments.calibration is not None else f"--model {arguments.model}"
        raise InputError(f"--array is of microphones in the open; {what} is for two ears. Leave one of them out.")
    if arguments.calibration is not None and arguments.model is not None and not named:
        raise InputError(f"--model must be vessl, vessl+nmf or the like with --calibration, got {arguments.model!r}.")
    is_named = named or arguments.calibration is not None
    if not is_named and (arguments.reverberant or arguments.preset != "best"):
        option = "--reverberant" if arguments.reverberant else "--preset"
        raise InputError(f"{option} is for a recording of two ears: give --calibration, or leave it out.")
    return is_named


def run_separate(arguments: argparse.Namespace) -> None:
    """`vbss separate` of two ears."""
    from vbss.audio import read_recording, write_recording

    _refuse_options_of_arrays(arguments)
    check_output_folder(arguments.out, **_inputs(arguments))
    calibration = _calibration(arguments)
    recording = read_recording(*arguments.mix)

    from vbss.binaural import separate_binaural
    from vbss.plots import plot_binaural

    load_matplotlib()
    run = partial(separate_binaural, recording, _number(arguments), calibration, **_settings(arguments))
    separation = infer(run, "separating", arguments.quiet)
    print_warnings(separation, arguments.quiet)
    report = binaural_report(arguments.mix, recording, separation)
    with new_output_folder(arguments.out) as folder:
        for source, image in zip(report["sources"], separation.images, strict=True):
            write_recording(folder / source["file"], image, separation.sample_rate)
        write_report(folder, report, plot_binaural(recording, separation))
    if not arguments.quiet:
        for source in report["sources"]:
            told = [_told(source), f"{100 * source['energy_share']:.0f} % of the energy"]
            ratio = source["expected_sdr_db"]
            told += [] if ratio is None else [f"expected SDR {ratio:.0f} dB"]
            print(f"{arguments.out / source['file']}: {', '.join(told)}")


def run_localize(arguments: argparse.Namespace) -> None:
    """`vbss localize` of two ears."""
    from vbss.audio import read_recording

    _refuse_options_of_arrays(arguments)
    if arguments.out is not None:
        check_output_folder(arguments.out, **_inputs(arguments))
        load_matplotlib()
    calibration = _calibration(arguments)
    recording = read_recording(*arguments.mix)

    from vbss.binaural import localize_binaural
    from vbss.plots import plot_binaural

    def run(progress: Any) -> "BinauralLocalization":
        return localize_binaural(recording, _number(arguments), calibration, **_settings(arguments))

    localization = infer(run, "localizing", arguments.quiet)
    print_warnings(localization, arguments.quiet)
    report = binaural_report(arguments.mix, recording, localization)
    if arguments.out is not None:
        with new_output_folder(arguments.out) as folder:
            write_report(folder, report, plot_binaural(recording, localization))
    if not arguments.quiet:
        for number, source in enumerate(report["sources"], 1):
            print(f"source {number}: {_told(source)}")


def _refuse_options_of_arrays(arguments: argparse.Namespace) -> None:
    """Raise InputError where an option was chosen that only an array's recording knows."""
    from vbss.settings import Settings

    defaults = {field.name: field.default for field in fields(Settings) if field.name not in ("model", "seed")}
    for name, default in (defaults | {"reference_microphone": 0, "all_channels": False}).items():
        if getattr(arguments, name, default) not in (None, default):
            option = OPTIONS.get(name, f"--{name}").replace("_", "-")
            raise InputError(f"{option} is for microphones in the open, not for two ears: leave it out.")


def _inputs(arguments: argparse.Namespace) -> dict[str, Any]:
    calibration = {} if arguments.calibration is None else {"--calibration": arguments.calibration}
    return {"MIX": arguments.mix} | calibration


def _number(arguments: argparse.Namespace) -> int:
    if arguments.num_sources == "auto":
        raise InputError("--sources must be a whole number for a recording of two ears; auto needs --array.")
    return arguments.num_sources


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `vbss.BinauralSettings` that the command line chooses; others belong to arrays."""
    return {
        "model": arguments.model,
        "vessl": arguments.preset,
        "reverberant": arguments.reverberant,
        "seed": arguments.seed,
    }


def _calibration(arguments: argparse.Namespace) -> "Calibration | None":
    from vbss.binaural import Calibration
    from vbss.storage import load

    if arguments.calibration is None:
        if arguments.model is not None and arguments.model.startswith("vessl"):
            raise InputError("--calibration must be given for --model vessl; vbss calibrate makes one.")
        return None
    calibration = load(arguments.calibration)
    if not isinstance(calibration, Calibration):
        raise InputError(
            f"--calibration {str(arguments.calibration)!r} holds a {type(calibration).__name__}, no calibration of a "
            "head: make one by vbss calibrate."
        )
    return calibration


def _told(source: dict[str, Any]) -> str:
    """Where a source is, in words."""
    azimuth, elevation = source["azimuth_degrees"], source["elevation_degrees"]
    told = f"azimuth {round(azimuth)} degrees"
    if elevation is not None:
        told += f", elevation {round(elevation)}"
    if source["delay_seconds"] is not None:
        told += f" (left ear earlier by {1000 * source['delay_seconds']:.2f} ms)"
    return told
