"""Train the separators that neural_separation.py compares, on simulated mixtures of a corpus of speech.

    python benchmarks/neural_training.py CORPUS --out DIR [--objective mixtures] [--scenes 2000] [--epochs 1 2 4 8]
        [--classes 2]

CORPUS is a folder of speech with splits.csv (speaker, split); the speakers of the split `train` are heard in training,
those of `dev` decide when the learning rate falls. Objectives: `mixtures` (`vbss.training.SpatialBound`, from mixtures
alone), `pit` and `clustering`, which are told the sources. The network as it was after each of the numbers of epochs is
DIR/OBJECTIVE/epoch_N.vbss; the same command, interrupted, goes on where it was.
"""

import argparse
import time
from dataclasses import fields
from pathlib import Path

import jax
from neural_baselines import EMBEDDING_SIZE, DeepClustering, LabelledMixtures, PermutationInvariant, Supervised

from vbss import TrainingSettings, save, train
from vbss.networks import ArrayNetwork, Separator
from vbss.scenes import Condition, SpeechCorpus
from vbss.training import SimulatedMixtures, SpatialBound

CONDITION = Condition(seconds=4.0)
OBJECTIVES = {"mixtures": SimulatedMixtures, "pit": LabelledMixtures, "clustering": LabelledMixtures}


def corpora(folder: Path, objective: str, scenes: int, cache: Path, speakers: int | None = None) -> tuple:
    """Those of training and validation."""
    heard = SpeechCorpus.read(folder, split="train")
    if speakers is not None:
        heard = SpeechCorpus(heard.folder, dict(list(heard.files.items())[:: len(heard.files) // speakers][:speakers]))
    parts = {"parts": 2, "cache": cache}
    training = OBJECTIVES[objective](heard, CONDITION, scenes, **parts)
    return training, OBJECTIVES[objective](SpeechCorpus.read(folder, split="dev"), CONDITION, 40, seed=1, **parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objective", default="mixtures", choices=list(OBJECTIVES))
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--speakers", type=int, help="heard in training; by default all")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--hidden-size", type=int, default=192)
    parser.add_argument("--cell", default="minimal", choices=("minimal", "lstm"), help="lstm with 600 is the paper's")
    parser.add_argument("--classes", type=int, default=2, help="of the network; beyond 2 of mixtures alone")
    arguments = parser.parse_args()
    training, validation = corpora(
        arguments.corpus, arguments.objective, arguments.scenes, arguments.out / "scenes", arguments.speakers
    )
    if arguments.classes != 2 and arguments.objective != "mixtures":
        parser.error("--classes is for the objective mixtures")
    num_classes = EMBEDDING_SIZE if arguments.objective == "clustering" else arguments.classes
    separator = Separator(
        len(training.stft.frequencies),
        num_classes,
        hidden_size=arguments.hidden_size,
        cell=arguments.cell,
        key=jax.random.key(0),
    )
    model, folder = training.model(arguments.classes), arguments.out / arguments.objective
    if arguments.objective == "mixtures":
        amortised = SpatialBound(ArrayNetwork(separator))
    else:
        model = Supervised(**{field.name: getattr(model, field.name) for field in fields(model)})
        amortised = {"pit": PermutationInvariant, "clustering": DeepClustering}[arguments.objective](separator)
    start = time.monotonic()
    for epochs in sorted(arguments.epochs):
        settings = TrainingSettings(batch_size=4, max_epochs=epochs, patience=2, stop_after=20, num_workers=1)
        trained = train(model, amortised, training, validation, settings, folder=folder)
        print(round(time.monotonic() - start), trained.history[-1], flush=True)
        network = trained.latest.amortised.network
        save(folder / f"epoch_{epochs}.vbss", network.separator if arguments.objective == "mixtures" else network)


if __name__ == "__main__":
    main()
