"""How good vbss expects its sources to be, against how good they are.

    python benchmarks/expected_sdr.py CORPUS [--conditions clean 30dB] [--scenes 30] [--split test]

CORPUS as for array_separation.py, whose scenes these are. `Separation.expected_sdr` knows no truth; the SDR is that of
BSS Eval against the images at microphone 0.
"""

import argparse
from pathlib import Path

import numpy as np
from conditions import CONDITIONS, named_condition
from observation import observe

import vbss
from vbss.audio import Recording
from vbss.metrics import separation_ratios
from vbss.scenes import Scene, SpeechCorpus, random_scene


def expected_and_measured(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Both SDR of every source of a scene, dB."""
    observation = observe(scene)
    recording = Recording(observation.mixture.astype(np.float32), observation.sample_rate)
    result = vbss.separate(recording, observation.microphone_positions, observation.num_sources)
    assert result.expected_sdr is not None
    measured = separation_ratios(scene.images[:, 0], result.sources)
    return result.expected_sdr[measured.permutation], measured.sdr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--conditions", nargs="+", default=["clean", "30dB"], choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--scenes", type=int, default=30, help="for each condition")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
    for condition in arguments.conditions:
        drawn = named_condition(condition, corpus.folder)
        pairs = [expected_and_measured(random_scene(corpus, drawn, index=i)) for i in range(arguments.scenes)]
        expected, measured = (np.concatenate(side) for side in zip(*pairs, strict=True))
        difference = expected - measured
        print(
            f"{condition}: {len(measured)} sources, measured {measured.mean():.2f} dB ({measured.min():.1f} to "
            f"{measured.max():.1f}); expected less measured {difference.mean():+.2f} dB, standard deviation "
            f"{difference.std(ddof=1):.2f}, from {difference.min():.1f} to {difference.max():.1f}, within 3 dB "
            f"{100 * np.mean(np.abs(difference) < 3):.0f} %; correlation {np.corrcoef(expected, measured)[0, 1]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
