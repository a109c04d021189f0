"""`vbss simulate`: speech in, mixtures with known truth out."""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, add_quiet, add_seed, at_least, in_options
from vbss.errors import InputError
from vbss.output import check_output_folder, new_output_folder

if TYPE_CHECKING:
    from vbss.scenes import Scene

# Options named otherwise than the argument that an error message speaks of.
_OPTIONS = {
    "num_sources": "--sources",
    "sensor_noise": "--noise",
    "diffuse_noise": "--diffuse-noise",
    "babble": "--babble",
    "sample_rate": "--sample-rate",
    "seconds": "--seconds",
    "split": "--split",
    "room": "--room",
}
_CONDITION = (  # the fields of `Condition` that can be chosen
    "num_sources", "sample_rate", "seconds", "microphones", "sensor_noise", "diffuse_noise", "babble",
    "responses", "room",
)  # fmt: skip
_EPILOG = """Writes DIR/scene_000/mixture.wav, one channel per microphone; source_1.wav, ..., what the first microphone
hears of each source alone; scene.json, all that is known of the scene; and so on for each scene. DIR/microphones.txt
holds the array: vbss separate DIR/scene_000/mixture.wav --array DIR/microphones.txt --sources K --out RESULT"""


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "simulate",
        help="make scenes with known truth from a folder of speech",
        description="Make mixtures of speech, in simulated or measured rooms, of which the truth is known.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "speech",
        type=Path,
        metavar="SPEECH_FOLDER",
        help="folder with a folder of sound files for each speaker, or with manifest.csv (columns file, speaker)",
    )
    parser.add_argument("--scenes", type=at_least(1), default=1, metavar="N", help="number of scenes (%(default)s)")
    parser.add_argument(
        "--sources", "--num-sources", type=at_least(2, 4), default=2, metavar="K", dest="num_sources",
        help="number of sources, 2 to 4 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--noise", "--sensor-noise", type=float, metavar="DB", dest="sensor_noise",
        help="white noise of the microphones, so many dB below the sources together (none)",
    )  # fmt: skip
    parser.add_argument(
        "--diffuse-noise", type=float, metavar="DB",
        help="noise from all directions alike, so many dB below the sources together (none)",
    )  # fmt: skip
    parser.add_argument(
        "--babble", type=float, metavar="DB",
        help="many other voices of the folder from all directions, so many dB below the sources together (none)",
    )  # fmt: skip
    parser.add_argument("--sample-rate", type=at_least(8000), default=8000, metavar="HZ", help="Hz (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="length of a scene, s (%(default)s)")
    parser.add_argument(
        "--array", "--microphones", default="circular:4:0.08", metavar="SPEC", dest="microphones",
        help="microphone positions, as for vbss separate (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--split", metavar="NAME", help="only the speakers of this split, by SPEECH_FOLDER/splits.csv (speaker, split)"
    )
    parser.add_argument(
        "--responses", type=Path, metavar="DIR",
        help="folder of measured impulse responses, used with their own array in place of simulated rooms: "
        "responses.csv (file, azimuth_degrees, room) and microphones.txt, or files of the R3VIVAL set",
    )  # fmt: skip
    parser.add_argument("--room", metavar="NAME", help="one of the measured rooms (drawn at random)")
    parser.add_argument(
        "--all-channels", action="store_true", help="write the sources as all microphones hear them, as the mixture is"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="folder that keeps what was made: the same command, interrupted, goes on from there",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the scenes, new or empty")
    add_quiet(parser)
    add_seed(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    inputs = {"SPEECH_FOLDER": arguments.speech, "--array": arguments.microphones}
    if arguments.responses is not None:
        inputs["--responses"] = arguments.responses
    check_output_folder(arguments.out, **inputs)
    if arguments.cache is not None and arguments.cache.resolve().is_relative_to(arguments.out.resolve()):
        raise InputError(f"--cache {str(arguments.cache)!r} lies inside the output folder: name another folder.")
    try:
        num_speakers = _simulate(arguments)
    except InputError as error:
        raise in_options(error, _OPTIONS) from error
    if not arguments.quiet:
        print(
            f"{arguments.out}: {arguments.scenes} scenes of {arguments.num_sources} sources, drawn from "
            f"{num_speakers} speakers"
        )


def _simulate(arguments: argparse.Namespace) -> int:
    """Write the scenes; the number of speakers there were to draw from."""
    from tqdm import trange

    from vbss.scenes import Condition, SpeechCorpus, random_scene

    corpus = SpeechCorpus.read(arguments.speech, arguments.split)
    condition = Condition(**{name: getattr(arguments, name) for name in _CONDITION})
    digits = max(3, len(str(arguments.scenes - 1)))
    silent = arguments.quiet or not sys.stderr.isatty()
    with new_output_folder(arguments.out) as folder:
        for index in trange(arguments.scenes, desc="simulating", unit="scene", leave=False, disable=silent):
            scene = random_scene(corpus, condition, seed=arguments.seed, index=index, cache=arguments.cache)
            _write_scene(folder / f"scene_{index:0{digits}}", scene, arguments.all_channels)
            if index == 0:
                _write_positions(folder / "microphones.txt", scene)
    return len(corpus.files)


def _write_scene(folder: Path, scene: "Scene", all_channels: bool) -> None:
    from vbss.audio import write_recording

    folder.mkdir()
    write_recording(folder / "mixture.wav", scene.mixture, scene.sample_rate)
    sources = []
    for number, (source, image) in enumerate(zip(scene.description["sources"], scene.images, strict=True), 1):
        name = f"source_{number}.wav"
        write_recording(folder / name, image if all_channels else image[0], scene.sample_rate)
        sources.append({"image": name, **source})
    description = {"schema_version": 1, "vbss_version": version("vbss"), **scene.description, "sources": sources}
    (folder / "scene.json").write_text(json.dumps(description, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_positions(path: Path, scene: "Scene") -> None:
    positions = scene.description["microphone_positions"]
    lines = [" ".join(f"{coordinate:.6f}" for coordinate in position) for position in positions]
    path.write_text("\n".join(["# x y z of each microphone, m", *lines]) + "\n", encoding="utf-8")
