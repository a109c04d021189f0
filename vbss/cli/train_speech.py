"""`vbss train --model vae`: clean speech in, a model of it out."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, at_least
from vbss.errors import InputError

if TYPE_CHECKING:
    from vbss.enhancement import SpeechTraining
    from vbss.scenes import SpeechCorpus

HELD_OUT = 10  # every tenth speaker, where no split says who
_LARGEST = 4096
_ARCHITECTURES = ("frames", "recurrent")


def add_speech(parser: Parser) -> None:
    """What a model of speech needs."""
    group = parser.add_argument_group("of speech, --model vae")
    group.add_argument("--codes", "--num-codes", type=at_least(1, _LARGEST), default=32, metavar="L", dest="num_codes",
                       help="of each frame (%(default)s)")  # fmt: skip
    group.add_argument(
        "--architecture", choices=_ARCHITECTURES, default="frames",
        help="networks that look at each frame by itself, or at all of a stretch, which is slow (%(default)s)",
    )  # fmt: skip
    group.add_argument("--kl-weight", type=float, default=1.0, metavar="X",
                       help="of the codes' divergence from their prior (%(default)s, the evidence bound)")  # fmt: skip


def divided_speech(folder: Path, *, at_least: int) -> "tuple[SpeechCorpus, SpeechCorpus]":
    """The speakers that are heard in training, and those that are kept for validation."""
    from vbss.scenes import SpeechCorpus

    if (folder / "splits.csv").is_file():
        return SpeechCorpus.read(folder, split="train"), SpeechCorpus.read(folder, split="dev")
    return SpeechCorpus.read(folder).held_out(HELD_OUT, at_least=at_least)


def trained_speech(arguments: argparse.Namespace, progress: Callable[..., Any]) -> "SpeechTraining":
    """The training that the arguments ask for."""
    from vbss.audio import STFT
    from vbss.enhancement import train_speech
    from vbss.training import SpeechSpectra, TrainingSettings

    if arguments.data is None:
        raise InputError("--model vae needs --data, a folder of clean speech.")
    heard, kept = divided_speech(arguments.data, at_least=1)
    settings = TrainingSettings(
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_epochs=arguments.max_epochs,
        patience=3,
        stop_after=10,
        seed=arguments.seed,
    )
    stft = STFT.init(arguments.sample_rate)
    corpus, validation = (SpeechSpectra(speech, stft=stft) for speech in (heard, kept))
    with progress(arguments) as told:
        return train_speech(
            corpus,
            validation,
            architecture=arguments.architecture,
            hidden_sizes=(arguments.hidden_size,),
            num_codes=arguments.num_codes,
            kl_weight=arguments.kl_weight,
            settings=settings,
            folder=arguments.out,
            progress=told,
        )
