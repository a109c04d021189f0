"""`vbss train`: speech or recordings in, a network out that separates, or knows what speech may be."""

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, add_quiet, add_seed, at_least, in_options
from vbss.cli.inference import InferenceFailed, progress_bar
from vbss.cli.train_speech import HELD_OUT, add_speech, divided_speech, trained_speech
from vbss.errors import InputError

if TYPE_CHECKING:
    from vbss.neural import NeuralTraining

_OPTIONS = {
    "num_sources": "--classes",
    "validation": "--validation",
    "hidden_size": "--hidden-size",
    "num_layers": "--layers",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "max_epochs": "--epochs",
    "seconds": "--seconds",
    "microphones": "--array",
    "folder:": "--out:",
    "files": "--recordings",
    "corpus:": "--data or --recordings:",
    "validation:": "--data or --validation:",
}
_DEFAULTS: dict[str, dict[str, int]] = {
    "cgmm": {"sample_rate": 8000, "max_epochs": 20, "batch_size": 4, "hidden_size": 192},
    "vae": {"sample_rate": 16000, "max_epochs": 60, "batch_size": 16, "hidden_size": 128},
}
_ONLY = {  # options that one of them knows
    "cgmm": {
        "validation": "--validation",
        "microphones": "--array",
        "num_sources": "--sources",
        "num_classes": "--classes",
        "scenes": "--scenes",
        "seconds": "--seconds",
        "num_layers": "--layers",
        "cell": "--cell",
    },
    "vae": {
        "num_codes": "--codes",
        "architecture": "--architecture",
        "speaker": "--speaker",
        "network": "--network",
        "kl_weight": "--kl-weight",
    },
}
_PARTS = 2  # of a simulated scene: drawing rooms takes longer than hearing them twice as long
_MOST = 1_000_000  # of scenes, epochs and items of a batch
_LARGEST, _DEEPEST = 4096, 16
_SCENES = "scenes"  # the folder of simulated ones, kept for the next epoch


def _told(name: str) -> str:
    return ", ".join(f"{defaults[name]} of {model}" for model, defaults in _DEFAULTS.items())


def add(commands: Any) -> None:
    """Describe the command to the parser."""
    parser: Parser = commands.add_parser(
        "train",
        help="train a network that separates, on mixtures alone, or a model of speech",
        description="With --model cgmm, train a network that separates sources heard by one microphone. It learns from "
        "mixtures recorded by an array, without any source alone: where sounds come from tells it which bins belong "
        "together. With --model vae, train an autoencoder on clean speech, for vbss enhance.",
        epilog="Writes DIR/network.vbss, metrics.jsonl, training.png, checkpoint.vbss and, of mixtures of --data, "
        "scenes, which may be deleted. The same command, stopped, goes on where it was, and with more --epochs, too. "
        "Then vbss separate MIX --network DIR/network.vbss --sources K --out RESULT, or vbss enhance NOISY --network "
        "DIR/network.vbss --out RESULT.",
    )
    parser.add_argument(
        "--model", choices=tuple(_DEFAULTS), default="cgmm",
        help="cgmm: of mixtures of an array; vae: of clean speech, by --data (%(default)s)",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data", type=Path, metavar="SPEECH_FOLDER",
        help="folder with a folder of sound files for each speaker, or with manifest.csv (file, speaker), from which "
        "mixtures in rooms are simulated; the speakers of dev in its splits.csv (speaker, split) are kept for "
        "validation and those of train are heard, else a tenth of all, at least K, is kept",
    )  # fmt: skip
    source.add_argument(
        "--recordings", type=Path, metavar="PATH",
        help="recorded mixtures of one array: a folder of sound files, of which every tenth is kept for validation, or "
        "a CSV file with the columns file (or mixture_path) and split (train or dev)",
    )  # fmt: skip
    parser.add_argument(
        "--validation", type=Path, metavar="PATH",
        help="other recordings for validation, where --recordings has no split: a folder, or a CSV file",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the training, new or not")
    parser.add_argument(
        "--array", "--microphone-positions", default="circular:4:0.08", metavar="SPEC", dest="microphones",
        help="microphone positions, as for vbss separate (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sources", "--num-sources", type=at_least(2, 4), default=2, metavar="K", dest="num_sources",
        help="in every mixture, 2 to 4 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", "--num-classes", type=at_least(2, 6), metavar="N", dest="num_classes",
        help="that the network tells apart, of which some stay empty; by default as many as --sources. With more, "
        "vbss separate --array --sources auto counts those that are sources",
    )  # fmt: skip
    parser.add_argument(
        "--scenes", type=at_least(1, _MOST), default=1000, metavar="N", help="simulated of --data (%(default)s)"
    )
    parser.add_argument("--sample-rate", type=at_least(8000), metavar="HZ", help=f"Hz ({_told('sample_rate')})")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="of sound in an item of a batch, s (%(default)s)"
    )
    parser.add_argument("--epochs", "--max-epochs", type=at_least(1, _MOST), metavar="N", dest="max_epochs",
                        help=f"passes over all data at most ({_told('max_epochs')})")  # fmt: skip
    parser.add_argument("--batch-size", type=at_least(1, _MOST), metavar="N",
                        help=f"items of a step ({_told('batch_size')})")  # fmt: skip
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X", help="of Adam (%(default)s)")
    parser.add_argument("--hidden-size", type=at_least(1, _LARGEST), metavar="N",
                        help=f"of a layer and direction of time ({_told('hidden_size')})")  # fmt: skip
    parser.add_argument("--layers", "--num-layers", type=at_least(1, _DEEPEST), default=3, metavar="N",
                        dest="num_layers", help="recurrent ones (%(default)s)")  # fmt: skip
    parser.add_argument(
        "--cell", choices=("minimal", "lstm"), default="minimal",
        help="of a layer; lstm is the paper's, with --hidden-size 600, and slow (%(default)s)",
    )  # fmt: skip
    add_speech(parser)
    add_quiet(parser)
    add_seed(parser)
    parser.set_defaults(run=lambda arguments: _run(parser, arguments))


def _run(parser: Parser, arguments: argparse.Namespace) -> None:
    for model, options in _ONLY.items():
        for name, option in options.items() if model != arguments.model else ():
            if getattr(arguments, name) != parser.get_default(name):
                raise InputError(f"{option} is for --model {model}: leave it out.")
    for name, value in _DEFAULTS[arguments.model].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    out: Path = arguments.out
    if not _may_be_of_training(out):
        raise InputError(f"--out {str(out)!r} is no folder of an earlier training: name another.")
    try:
        trained = _trained(arguments) if arguments.model == "cgmm" else trained_speech(arguments, _progress)
    except InputError as error:
        raise in_options(error, _OPTIONS) from error
    if trained.training.status.name == "interrupted":
        raise KeyboardInterrupt
    training, network = trained.training, out / "network.vbss"
    if math.isfinite(training.best):
        from vbss.storage import save

        save(network, trained[0])
    if training.epoch > 0:
        from vbss.plots import plot_training

        unfinished = out / ".training.png.new"
        plot_training(training).savefig(unfinished, format="png")
        unfinished.replace(out / "training.png")
    if training.status.name == "nonfinite":
        kept = f" {network} is the best until then;" if math.isfinite(training.best) else ""
        raise InferenceFailed(
            f"the bound became infinite or nan;{kept} another --out and a smaller --learning-rate may help."
        )
    if not arguments.quiet:
        why = "the validation bound rose no more" if training.status.name == "converged" else "as many as --epochs says"
        epochs = f"{training.epoch} epoch{'s' if training.epoch != 1 else ''}"
        print(f"{network}: {epochs}, {why}; best validation bound {training.best:.6g} (nats, mean over stretches)")


def _may_be_of_training(out: Path) -> bool:
    """Whether a folder is new, or holds what a training leaves, though it was killed while it wrote."""
    from vbss.enhancement.speakers import ALONE
    from vbss.training.checkpoint import CHECKPOINT, LOCK

    if not out.exists():
        return True
    if not out.is_dir():
        return False
    names = [path.name for path in out.iterdir()]
    begun = [name for name in names if name in (_SCENES, ALONE, LOCK) or name.startswith(f".{CHECKPOINT}.")]
    return CHECKPOINT in names or len(begun) == len(names)


def _trained(arguments: argparse.Namespace) -> "NeuralTraining":
    from vbss.audio import read_microphone_positions
    from vbss.neural import train_separator
    from vbss.training import TrainingSettings

    settings = TrainingSettings(
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_epochs=arguments.max_epochs,
        patience=2,
        seed=arguments.seed,
    )
    if arguments.num_classes is not None and arguments.num_classes < arguments.num_sources:
        raise InputError(
            f"--classes must not be below --sources, {arguments.num_sources}, got {arguments.num_classes}."
        )
    if arguments.validation is not None and arguments.recordings is None:
        raise InputError("--validation is for --recordings: the speakers of --data are divided.")
    positions = read_microphone_positions(arguments.microphones)
    corpus, validation = _simulated(arguments) if arguments.recordings is None else _recorded(arguments, len(positions))
    with _progress(arguments) as progress:
        return train_separator(
            corpus,
            validation,
            positions,
            arguments.num_sources if arguments.num_classes is None else arguments.num_classes,
            hidden_size=arguments.hidden_size,
            num_layers=arguments.num_layers,
            cell=arguments.cell,
            settings=settings,
            folder=arguments.out,
            progress=progress,
        )


@contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Any]:
    """A bar on terminals, and warnings in lines of their own, unless --quiet."""
    from tqdm import tqdm

    from vbss.training import TrainingDataWarning

    with (
        progress_bar("training", arguments.quiet) as progress,
        warnings.catch_warnings(category=TrainingDataWarning, action="ignore" if arguments.quiet else "default"),
    ):
        warnings.showwarning = lambda message, *where: tqdm.write(f"vbss: warning: {message}", file=sys.stderr)
        yield progress


def _simulated(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Training and validation corpora of a folder of speech."""
    from vbss.scenes import Condition
    from vbss.training import SimulatedMixtures

    if not 1 <= _PARTS * arguments.seconds < math.inf:
        raise InputError(f"seconds must be at least {1 / _PARTS} with --data, got {arguments.seconds}.")
    condition = Condition(
        num_sources=arguments.num_sources,
        sample_rate=arguments.sample_rate,
        seconds=_PARTS * arguments.seconds,
        microphones=arguments.microphones,
    )
    heard, kept = divided_speech(arguments.data, at_least=arguments.num_sources)
    cache, seed = arguments.out / _SCENES, arguments.seed
    few = max(1, arguments.scenes // HELD_OUT)
    return (
        SimulatedMixtures(heard, condition, arguments.scenes, parts=_PARTS, seed=seed, cache=cache),
        SimulatedMixtures(kept, condition, few, parts=_PARTS, seed=seed + 1, cache=cache),
    )


def _recorded(arguments: argparse.Namespace, num_microphones: int) -> tuple[Any, Any]:
    """Training and validation corpora of recordings."""
    from vbss.audio import STFT
    from vbss.training import RecordedMixtures

    options = {"seconds": arguments.seconds, "stft": STFT.init(arguments.sample_rate)}
    if arguments.validation is not None:
        corpora = (
            RecordedMixtures.read(arguments.recordings, **options),
            RecordedMixtures.read(arguments.validation, **options),
        )
    elif arguments.recordings.is_dir():
        corpora = RecordedMixtures.read(arguments.recordings, **options).held_out(HELD_OUT)
    else:
        read = partial(RecordedMixtures.read, arguments.recordings, **options)
        corpora = read(split="train"), read(split="dev")
    for corpus in corpora:
        if corpus.num_channels != num_microphones:
            raise InputError(
                f"--array has {num_microphones} microphones, the file {str(corpus.stretches[0].file)!r} has "
                f"{corpus.num_channels} channels."
            )
    return corpora
