"""The table of Deep Bayesian cGMM on simulated rooms: neural separators, and where EM starts.

    python benchmarks/neural_separation.py CORPUS --avi FILE --pit FILE --clustering FILE --out DIR [--scenes 60]

The files are networks of neural_training.py; what needs one that is not given has no row. Every system hears the same
scenes; all masks are applied to the first microphone's mixture in windows of 64 ms. Writes OUT/scenes.jsonl, a line for
each scene, which are kept and not computed again, OUT/report.md and OUT/directions.png (SDR against the angle between
the sources). CORPUS needs manifest.csv with the column gender.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import peers
from neural_baselines import clustered_masks
from neural_training import CONDITION
from observation import observe, separate_or_give_up
from paired import mean_interval, paired_difference

from vbss import EM, fit, load
from vbss.metrics import separation_ratios
from vbss.models import LDACGMM
from vbss.models.cgmm_start import direction_groups, given_masks
from vbss.networks import Recurrent, Separator
from vbss.networks.recurrent import CELLS
from vbss.scenes import Scene, SpeechCorpus
from vbss.scenes.corpus import read_table
from vbss.training import SimulatedMixtures

_NETWORKS = ("avi", "pit", "clustering")
_STEPS = 50
_MANY = 6  # classes of the start by (19) and (20)
TITLES = {
    "em-network": "EM-cGMM, network start",
    "em-apart": "EM-cGMM, network start, directions apart",
    "em-groups": "EM-cGMM, (19)-(20) start, 6 classes",
    "em-peaks": "EM-cGMM, start of the histogram's peaks",
    "avi": "AVI-cGMM, one microphone",
    "auxiva-clustered": "AuxIVA+",
    "auxiva": "AuxIVA, two microphones",
    "pit": "PIT, one microphone",
    "clustering": "DPCL, one microphone",
    "ideal-binary": "ideal binary mask",
    "ideal-ratio": "ideal ratio mask",
    "mixture": "mixture",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    for name in _NETWORKS:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--split", default="test")
    parser.add_argument("--systems", nargs="+", choices=list(TITLES), default=list(TITLES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
    drawn = SimulatedMixtures(corpus, CONDITION, arguments.scenes, cache=arguments.out / "scenes")
    genders = {row["speaker"]: row["gender"] for row in read_table(corpus.folder / "manifest.csv", ("gender",))}
    given = {name: getattr(arguments, name) for name in _NETWORKS}
    networks = {name: _network(file) for name, file in given.items() if file is not None}
    needed = {"em-network": "avi", "em-apart": "avi"} | {name: name for name in _NETWORKS}
    arguments.systems = [name for name in arguments.systems if name not in needed or needed[name] in networks]
    systems = _systems(drawn, networks)
    file, entries = arguments.out / "scenes.jsonl", []
    if file.exists():
        entries = [json.loads(line) for line in file.read_text().splitlines()]
    for index in range(len(entries), arguments.scenes):
        scene = drawn.scene(index)
        speakers = [genders[source["speaker"]] for source in scene.description["sources"]]
        entry: dict[str, Any] = {"genders": "same" if speakers[0] == speakers[1] else "different"}
        entry["angle"] = float(np.degrees(abs(np.angle(np.exp(1j * np.diff(scene.azimuths)[0])))))
        for name in arguments.systems:
            entry[name] = separation_ratios(scene.images[:, 0], systems[name](scene)).sdr.tolist()
        with file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
        entries.append(entry)
        print(index + 1, {name: round(float(np.mean(entry[name])), 1) for name in arguments.systems}, flush=True)
    report = _report(entries, arguments.systems)
    (arguments.out / "report.md").write_text(report)
    _plot(entries, arguments.systems, arguments.out / "directions.png")
    print(report)


def _network(file: Path) -> Separator:
    return load(file, Separator, Recurrent, *CELLS.values())


def _systems(drawn: SimulatedMixtures, networks: dict[str, Separator]) -> dict[str, Callable[[Scene], np.ndarray]]:
    """By name, a function from a scene to estimates (K, samples)."""
    model = drawn.model(diffuseness=1e-2)
    said = {
        name: jax.jit(lambda x, network=network: network(x)["source"])
        for name, network in networks.items()
        if name != "clustering"
    }

    def by_em(start: Any, model: LDACGMM = model) -> Callable:
        def masks(x: jax.Array, scene: Scene) -> np.ndarray:
            solution = fit(model, x, EM(), start=None if start is None else start(model, x), max_steps=_STEPS)
            posterior: Any = solution.posterior
            return np.asarray(posterior["source"].probs)

        return masks

    def loudest(x: jax.Array, scene: Scene) -> np.ndarray:
        many = by_em(direction_groups, drawn.model(_MANY, diffuseness=1e-2))(x, scene)
        energies = (many * (np.abs(np.asarray(x)[..., :1]) ** 2)).sum((0, 1))
        return many[..., np.argsort(-energies)[: len(scene.images)]]

    def ideal(is_binary: bool) -> Callable:
        def masks(x: jax.Array, scene: Scene) -> np.ndarray:
            magnitudes = np.abs(drawn.transformed(scene.images[:, 0]))
            if is_binary:
                return (magnitudes == magnitudes.max(-1, keepdims=True)).astype(np.float32)
            return magnitudes / np.maximum(magnitudes.sum(-1, keepdims=True), 1e-12)

        return masks

    def masked(masks: Callable) -> Callable[[Scene], np.ndarray]:
        def separate(scene: Scene) -> np.ndarray:
            x = jnp.asarray(drawn.spectrogram(scene))
            spectrograms = jnp.moveaxis(x[..., :1] * masks(x, scene), (0, 1, 2), (2, 1, 0))
            return np.asarray(drawn.stft.inverse(spectrograms, scene.mixture.shape[1]))

        return separate

    def of_peer(separate: Callable, **options: Any) -> Callable[[Scene], np.ndarray]:
        def sources(scene: Scene) -> np.ndarray:
            estimate, _ = separate_or_give_up(lambda observation: separate(observation, **options), observe(scene))
            assert estimate.sources is not None
            return estimate.sources

        return sources

    return {
        "em-network": masked(by_em(lambda model, x: given_masks(model, x, said["avi"](x)))),
        "em-apart": masked(by_em(lambda model, x: given_masks(model, x, said["avi"](x), are_apart=True))),
        "em-groups": masked(loudest),
        "em-peaks": masked(by_em(None)),
        "avi": masked(lambda x, scene: said["avi"](x[..., :1])),
        "auxiva-clustered": of_peer(peers.auxiva_clustered, window=0.128, model="gauss", iterations=100),
        "auxiva": of_peer(peers.auxiva_determined, window=0.256, model="gauss", iterations=50),
        "pit": masked(lambda x, scene: said["pit"](x[..., :1])),
        "clustering": masked(lambda x, scene: clustered_masks(networks["clustering"], x[..., :1], len(scene.images))),
        "ideal-binary": masked(ideal(True)),
        "ideal-ratio": masked(ideal(False)),
        "mixture": lambda scene: np.repeat(scene.mixture[:1], len(scene.images), axis=0),
    }


def _report(entries: list[dict[str, Any]], systems: list[str]) -> str:
    """Means and standard deviations over sources, and what the starts of EM differ by."""
    columns = {"all": lambda e: True} | {
        name: lambda e, name=name: e["genders"] == name for name in ("same", "different")
    }
    counts = ", ".join(f"{sum(map(chosen, entries))} {name}" for name, chosen in columns.items())
    lines = [f"SDR, dB, mean and standard deviation over sources ({counts} scenes)", ""]
    lines += ["| system | all | same gender | different genders | gain, different genders |", "|---|---|---|---|---|"]
    for name in systems:
        cells = []
        for chosen in columns.values():
            ratios = np.array([entry[name] for entry in entries if chosen(entry)])
            cells.append(f"{ratios.mean():.1f} ± {ratios.std():.1f}" if ratios.size else "")
        gain = ""
        if "mixture" in systems and name != "mixture":
            gains = {
                i: float(np.mean(e[name]) - np.mean(e["mixture"]))
                for i, e in enumerate(entries)
                if e["genders"] == "different"
            }
            gain = "{:.1f} [{:.1f}, {:.1f}]".format(*mean_interval(gains)[:3]) if gains else ""
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} | {gain} |")
    pairs = [("em-network", "em-peaks"), ("em-apart", "em-peaks"), ("em-apart", "em-groups")]
    for ours, theirs in pairs:
        if ours in systems and theirs in systems:
            lines.append("")
            for title, low, high in (("all", 0, 181), ("below 60 degrees", 0, 60), ("60 degrees and more", 60, 181)):
                values = [
                    {i: float(np.mean(e[name])) for i, e in enumerate(entries) if low <= e["angle"] < high}
                    for name in (ours, theirs)
                ]
                if values[0]:
                    mean, below, above, count = paired_difference(*values)
                    lines.append(
                        f"{TITLES[ours]} - {TITLES[theirs]}, {title}: {mean:+.2f} [{below:.2f}, {above:.2f}] dB, "
                        f"{count} scenes"
                    )
    return "\n".join(lines) + "\n"


def _plot(entries: list[dict[str, Any]], systems: list[str], file: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.5), sharey=True, layout="constrained")
    shown = ("em-apart", "em-groups", "em-peaks", "avi")
    for axis, name in zip(axes, (name for name in shown if name in systems), strict=False):
        for genders, color in (("same", "tab:orange"), ("different", "tab:blue")):
            points = [(e["angle"], ratio) for e in entries if e["genders"] == genders for ratio in e[name]]
            axis.scatter(*zip(*points, strict=True), s=8, color=color, label=genders) if points else None
        axis.set(title=TITLES[name], xlabel="angle between the sources, degrees")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("SDR, dB")
    axes[0].legend(title="genders")
    figure.savefig(file, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
