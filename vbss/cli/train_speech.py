"""`vbss train --model vae`: clean speech in, a model of it out."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbss.cli.arguments import Parser, at_least
from vbss.cli.known_sources import speech_of
from vbss.errors import InputError

if TYPE_CHECKING:
    from vbss.enhancement import SpeechTraining, TrainedSpeech
    from vbss.scenes import SpeechCorpus

# What networks are like that begin at random, and by default.
_SIZES = {
    "architecture": ("--architecture", "frames"),
    "num_codes": ("--codes", 32),
    "hidden_size": ("--hidden-size", 128),
}
_FEW = 5  # names that a message lists
_PRETRAINED_RATE = 16000  # Hz
HELD_OUT = 10  # every tenth speaker, where no split says who
_LARGEST = 4096
_ARCHITECTURES = ("frames", "recurrent")


def add_speech(parser: Parser) -> None:
    """What a model of speech needs."""
    group = parser.add_argument_group("of speech, --model vae")
    group.add_argument(
        "--codes", "--num-codes", type=at_least(1, _LARGEST), default=_SIZES["num_codes"][1], metavar="L",
        dest="num_codes", help="of each frame (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--architecture", choices=_ARCHITECTURES, default=_SIZES["architecture"][1],
        help="networks that look at each frame by itself, or at all of a stretch, which is slow (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--speaker", metavar="NAME",
        help="learn the voice of one speaker of --data, and to hear it in mixtures with the others, for vbss separate "
        "--networks; a folder's name, or a speaker of manifest.csv. A tenth of the speech is kept for validation",
    )  # fmt: skip
    group.add_argument(
        "--network", type=Path, metavar="FILE",
        help="a model of speech to go on from, instead of a random one; with --speaker, at 16 kHz, by default the one "
        "of vbss, unless --codes, --hidden-size or --architecture are chosen",
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
    from vbss.enhancement import train_speaker, train_speech
    from vbss.training import SpeechSpectra, TrainingSettings

    if arguments.data is None:
        raise InputError("--model vae needs --data, a folder of clean speech.")
    settings = TrainingSettings(
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_epochs=arguments.max_epochs,
        patience=3,
        stop_after=10,
        seed=arguments.seed,
    )
    stft = STFT.init(arguments.sample_rate)
    options = {
        "architecture": arguments.architecture,
        "hidden_sizes": (arguments.hidden_size,),
        "num_codes": arguments.num_codes,
        "kl_weight": arguments.kl_weight,
        "settings": settings,
        "start": _start(arguments),
    }
    with progress(arguments) as told:
        if arguments.speaker is not None:
            corpora = (SpeechSpectra(speech, stft=stft) for speech in _of_speaker(arguments.data, arguments.speaker))
            return train_speaker(*corpora, folder=arguments.out, progress=told, **options)
        corpora = (SpeechSpectra(speech, stft=stft) for speech in divided_speech(arguments.data, at_least=1))
        return train_speech(*corpora, folder=arguments.out, progress=told, **options)


def _of_speaker(folder: Path, speaker: str) -> "tuple[SpeechCorpus, SpeechCorpus]":
    """A speaker's speech, and that of all others."""
    from vbss.scenes import SpeechCorpus

    corpus = SpeechCorpus.read(folder)
    if speaker not in corpus.files:
        known = ", ".join(list(corpus.files)[:_FEW])
        raise InputError(f"--speaker must be one of {len(corpus.files)} in --data, such as {known}, got {speaker!r}.")
    others = {name: files for name, files in corpus.files.items() if name != speaker}
    return SpeechCorpus(folder, {speaker: corpus.files[speaker]}), SpeechCorpus(folder, others)


def _start(arguments: argparse.Namespace) -> "TrainedSpeech | None":
    """The networks that training begins with."""
    from vbss.enhancement import pretrained_speech

    other = [option for name, (option, default) in _SIZES.items() if getattr(arguments, name) != default]
    if arguments.network is not None:
        if other:
            raise InputError(f"{other[0]} is that of --network: leave it out.")
        return speech_of(arguments.network, "--network")
    is_known = arguments.sample_rate == _PRETRAINED_RATE and not other
    return pretrained_speech() if arguments.speaker is not None and is_known else None
