"""How often a network's classes say how many sources there are, against the peaks of the directions' histogram.

    python benchmarks/neural_counting.py CORPUS --network FILE [--scenes 40] [--split test]

CORPUS as for neural_training.py, by which FILE is made with --classes 3: more than the two sources that any of its
scenes had. The scenes have one source or two, at least 25 degrees apart, and are those of source_counting.py.
"""

import argparse
from pathlib import Path

import numpy as np
from neural_training import CONDITION
from scipy import stats
from source_counting import recorded

from vbss import load, separate_from_network
from vbss.audio import STFT, Recording
from vbss.networks import Recurrent, Separator
from vbss.networks.recurrent import CELLS
from vbss.neural import TrainedSeparator
from vbss.scenes import SpeechCorpus
from vbss.separation import localize

NUMBERS = (1, 2)
OPTIONS = {"model": "cgmm", "max_steps": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=40, help="for each number of sources")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
    network = load(arguments.network, Separator, Recurrent, *CELLS.values())
    trained = TrainedSeparator(network, STFT.init(CONDITION.sample_rate))
    systems = {
        "network's classes": lambda *recorded: separate_from_network(*recorded, trained, "auto", **OPTIONS),
        "histogram's peaks": lambda *recorded: localize(*recorded, "auto", **OPTIONS),
    }
    found: dict[str, list[tuple[int, int, float]]] = {name: [] for name in systems}
    for true in NUMBERS:
        for index in range(arguments.scenes):
            samples, scene = recorded(corpus, true, None, index)
            recording = Recording(samples.astype(np.float32), scene.sample_rate)
            for name, count in systems.items():
                counted = count(recording, scene.microphone_positions)
                found[name].append((true, len(counted.classes), float(counted.number_probabilities[true - 1])))
    print("| start | of one | of two | right, % [95 %] | probability of the true number |\n|---|---|---|---|---|")
    for name, counts in found.items():
        right = [sum(n == true == number for number, n, _ in counts) for true in NUMBERS]
        interval = stats.binomtest(sum(right), len(counts)).proportion_ci(0.95, method="wilson")
        print(
            f"| {name} | {right[0]} of {arguments.scenes} | {right[1]} of {arguments.scenes} | "
            f"{100 * sum(right) / len(counts):.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}] | "
            f"{np.mean([probability for *_, probability in counts]):.2f} |"
        )


if __name__ == "__main__":
    main()
