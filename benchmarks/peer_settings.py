"""The choice of the peers' settings, and of the window of vbss: each that was tried, on scenes of development speakers.

    python benchmarks/peer_settings.py CORPUS [--peers vbss auxiva ...] [--scenes 6] [--conditions clean 30dB]

Prints one line per setting, the best first: by the mean SDR over all scenes and conditions, or for what does not
separate by the mean error of its directions. A scene on which a peer fails counts as not separated.
"""

import argparse
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import peers
from conditions import named_condition
from observation import Estimate, Observation, observe, separate_or_give_up
from quality import quality
from systems import vbss_separate

from vbss.scenes import SpeechCorpus, random_scene

_AUXIVA = {"window": (0.064, 0.128, 0.256), "model": ("laplace", "gauss"), "iterations": (50, 100)}
GRIDS = {
    "vbss": {"window": (0.096, 0.128, 0.192), "num_components": (8, 16, 32), "max_sum_steps": (30, 60)},
    "auxiva": {**_AUXIVA, "outputs": ("sources", "microphones")},
    "auxiva_determined": {**_AUXIVA, "window": (0.128, 0.256, 0.512)},
    "auxiva_clustered": _AUXIVA,
    "ilrma": {"window": (0.128, 0.256, 0.512), "components": (2, 4), "iterations": (50, 100)},
    "fastmnmf2": {
        "window": (0.064, 0.128, 0.256),
        "components": (8, 16),
        "iterations": (100,),
        "spare_sources": (1,),
    },
    "cacgmm": {
        "window": (0.064, 0.128, 0.256),
        "iterations": (50,),
        "alignment": ("posterior_score", "amplitude_score", "amplitude_correlation"),
        "sweeps": (10,),
    },
    "localise": {
        "algorithm": ("SRP", "MUSIC", "NormMUSIC"),
        "window": (0.064, 0.128),
        "lowest": (200.0, 1000.0),
        "highest": (3800.0,),
    },
}


def _vbss(observation: Observation, window: float, **settings: Any) -> Estimate:
    return vbss_separate(observation, window=window, hop=window / 4, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--peers", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--conditions", nargs="+", default=["clean", "30dB"])
    arguments = parser.parse_args()
    corpus = SpeechCorpus.read(arguments.corpus, split="dev")
    scenes = [
        random_scene(corpus, named_condition(name, arguments.corpus), index=index)
        for name in arguments.conditions
        for index in range(arguments.scenes)
    ]
    for peer in arguments.peers:
        grid = GRIDS[peer]
        separate = _vbss if peer == "vbss" else getattr(peers, peer)
        lines = []
        for values in product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            lines.append(_tried(separate, settings, scenes, arguments.conditions))
        print(f"{peer}:")
        for _, line in sorted(lines, reverse=True):
            print(f"  {line}", flush=True)


def _tried(separate, settings, scenes, conditions) -> tuple[float, str]:
    """How good a setting is, the higher the better, and a line that tells more."""
    marks, failures, begin = [], 0, time.process_time()
    for scene in scenes:
        estimate, failed = separate_or_give_up(lambda o: separate(o, **settings), observe(scene))
        found = quality(scene, estimate)
        marks.append(np.mean(found["sdr"]) if "sdr" in found else -np.mean(found["direction_errors"]))
        failures += failed
    seconds = (time.process_time() - begin) / len(scenes)
    by_condition = np.abs(np.reshape(marks, (len(conditions), -1)).mean(1))
    figures = ", ".join(f"{name} {mean:.2f}" for name, mean in zip(conditions, by_condition, strict=True))
    described = ", ".join(f"{name}={value}" for name, value in settings.items())
    unit = "dB" if "sdr" in found else "degrees"
    mean = float(np.mean(marks))
    return mean, f"{abs(mean):.2f} {unit} ({figures}), {failures} failed, {seconds:.2f} s: {described}"


if __name__ == "__main__":
    main()
