"""`vbss demo`: a scene of its own, separated and compared with the truth."""

import argparse
from functools import partial
from typing import Any

from vbss.cli.arguments import Parser, add_output, add_quiet, add_seed
from vbss.cli.inference import infer
from vbss.cli.reports import load_matplotlib, print_warnings, separation_report, write_separation
from vbss.output import check_output_folder, new_output_folder


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "demo",
        help="make a scene, separate it and compare with the truth",
        description="Simulate two voices in a room, separate the recording and compare with the truth.",
        epilog="Writes what separate writes, and DIR/mixture.wav.",
    )
    add_output(parser)
    add_quiet(parser)
    add_seed(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from vbss.audio import Recording, write_recording
    from vbss.metrics import signal_to_distortion_ratio
    from vbss.scenes import demo_scene
    from vbss.separation import separate

    check_output_folder(arguments.out)
    load_matplotlib()
    scene = demo_scene(arguments.seed)
    recording = Recording(scene.mixture, scene.sample_rate)
    run = partial(separate, recording, scene.microphone_positions, len(scene.images), seed=arguments.seed)
    separation = infer(run, "separating", arguments.quiet)
    print_warnings(separation, arguments.quiet)
    report = separation_report(["mixture.wav"], recording, scene.microphone_positions, separation)

    images, heard = scene.images[:, 0], scene.mixture[0]
    before, _ = signal_to_distortion_ratio(images, np.stack([heard] * len(images)))
    after, order = signal_to_distortion_ratio(images, np.asarray(separation.sources))

    with new_output_folder(arguments.out) as folder:
        write_recording(folder / "mixture.wav", recording.samples, recording.sample_rate)
        write_separation(folder, recording, separation, report)
    if arguments.quiet:
        return
    for voice, estimate in enumerate(order):
        source = report["sources"][estimate]
        true_direction = np.degrees(scene.azimuths[voice]) % 360
        print(
            f"{arguments.out / source['file']}: voice {voice + 1}, "
            f"direction {source['direction_degrees']:.0f} degrees (true {true_direction:.0f}), "
            f"SDR {after[voice]:.1f} dB (in the mixture {before[voice]:.1f})"
        )
