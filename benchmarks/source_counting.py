"""How often vbss finds the right number of sources.

    python benchmarks/source_counting.py CORPUS [--scenes 20] [--split test]

CORPUS as for array_separation.py. The scenes have 1 to 4 sources at least 25 degrees apart, at 8 kHz around 4
microphones, and are otherwise those of the condition clean or 30dB; one source is that of a scene of two, with noise of
its own level.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from vbss.audio import Recording
from vbss.counting import MAX_SOURCES
from vbss.scenes import Condition, Scene, SpeechCorpus, random_scene
from vbss.separation import localize

NUMBERS = (1, 2, 3, 4)


def recorded(
    corpus: SpeechCorpus, num_sources: int, sensor_noise: float | None, index: int
) -> tuple[Float[np.ndarray, "microphones samples"], Scene]:
    """What the microphones hear of so many sources, and the scene."""
    condition = Condition(num_sources=max(num_sources, 2), smallest_angle=25.0, sensor_noise=sensor_noise)
    scene = random_scene(corpus, condition, index=index)
    if num_sources > 1:
        return scene.mixture, scene
    alone = scene.images[index % 2]
    level = np.sqrt(np.mean(np.square(alone)) / np.mean(np.square(scene.images.sum(0))))
    return alone + level * scene.noise, scene


def confusion(pairs: Iterable[tuple[int, int]]) -> Int[np.ndarray, "numbers counts"]:
    """How often each true number in `NUMBERS` was found to be 1, 2, ..., `MAX_SOURCES`."""
    table = np.zeros((len(NUMBERS), MAX_SOURCES), int)
    for true, found in pairs:
        table[NUMBERS.index(true), found - 1] += 1
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--scenes", type=int, default=20, help="for each number of sources and condition")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
    for name, sensor_noise in (("clean", None), ("30dB", 30.0)):
        pairs, right = [], []  # the probability given to the true number
        for true in NUMBERS:
            for index in range(arguments.scenes):
                samples, scene = recorded(corpus, true, sensor_noise, index)
                recording = Recording(samples.astype(np.float32), scene.sample_rate)
                found = localize(recording, scene.microphone_positions, "auto", max_steps=1)
                pairs.append((true, len(found.classes)))
                right.append(found.number_probabilities[true - 1])
        table = confusion(pairs)
        successes = sum(true == found for true, found in pairs)
        interval = stats.binomtest(successes, len(pairs)).proportion_ci(0.95, method="wilson")
        print(f"{name}\nsources  found " + " ".join(f"{found:3d}" for found in range(1, MAX_SOURCES + 1)))
        for true, row in zip(NUMBERS, table, strict=True):
            print(f"{true:7d}        " + " ".join(f"{times:3d}" for times in row))
        print(
            f"right in {successes} of {len(pairs)}, {100 * successes / len(pairs):.0f} % (95 % interval "
            f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %); probability of the true number "
            f"{np.mean(right):.2f} in the mean",
            flush=True,
        )


if __name__ == "__main__":
    main()
