"""Speech enhancement: every algorithm on one model, and peers, at several signal-to-noise ratios.

    python benchmarks/enhancement.py CORPUS --out DIR [--network FILE] [--utterances 12] [--split test]
    python benchmarks/enhancement.py --manifest FILE.csv --out DIR [--network FILE]

CORPUS is a folder with manifest.csv (file, speaker, kind) and splits.csv; the speakers of the split are heard, each
with one utterance of at most 5 s, at 16 kHz. Noises: white, pink and the babble of six other speakers of the split, and
the recordings of CORPUS/noise (those of the split: files whose place in the sorted list is a multiple of 3 are test).
FILE.csv is a test set that is mixed already, such as VoiceBank-DEMAND: the columns clean and noisy are sound files
relative to its folder, name, kind and snr what else is known; sounds are brought to the network's rate.

All systems hear the same. Writes DIR/results.jsonl, a line for each mixture, which are kept and not computed again
(those of another network, sound or version are refused), and DIR/report.md. PESQ and STOI need the extra metrics, the
peer noisereduce its own package; what is not installed has no column or row.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from enhancement_report import corpus_report, pairs_report
from noisy_speech import Mixture, mix, read_pairs
from protocol import check_protocol

from vbss import enhance, load, pretrained_speech
from vbss.audio import Recording
from vbss.enhancement import ALGORITHMS
from vbss.errors import InputError
from vbss.inference.loop import fingerprint
from vbss.metrics import separation_ratios, speech_quality
from vbss.models.nmf import itakura_saito_nmf
from vbss.scenes import SpeechCorpus


def systems(trained: Any) -> dict[str, Callable[[Mixture], np.ndarray]]:
    """By name, from a mixture to its speech."""

    def ours(algorithm: str) -> Callable[[Mixture], np.ndarray]:
        def speech(mixture: Mixture) -> np.ndarray:
            recording = Recording((mixture.speech + mixture.noise)[None].astype(np.float32), mixture.sample_rate)
            return enhance(recording, trained, algorithm=algorithm).speech[0]

        return speech

    found = {algorithm: ours(algorithm) for algorithm in ALGORITHMS}
    found["power subtraction of the noise's own NMF"] = lambda mixture: _wiener(mixture, trained.stft)
    if find_spec("noisereduce"):
        import noisereduce

        for name, is_stationary in (("noisereduce, stationary", True), ("noisereduce, adaptive", False)):
            found[name] = lambda mixture, is_stationary=is_stationary: noisereduce.reduce_noise(
                y=mixture.speech + mixture.noise, sr=mixture.sample_rate, stationary=is_stationary
            )
    return found


def _wiener(mixture: Mixture, stft: Any) -> np.ndarray:
    """Of the noise's own NMF of 8 spectra, which nobody else is told, and the power that is left."""
    import jax.numpy as jnp

    spectrum, noise = (
        stft.forward(jnp.asarray(x, jnp.float32)) for x in (mixture.speech + mixture.noise, mixture.noise)
    )
    power = jnp.abs(spectrum) ** 2
    spectra, activations = itakura_saito_nmf((jnp.abs(noise) ** 2).T[:, None], 8, key=jax.random.key(0))
    share = jnp.maximum(1 - jnp.einsum("fkb,kbn->nf", spectra, activations) / power, 1e-3)
    return np.asarray(stft.inverse(share * spectrum, len(mixture.speech)))


def measures(mixture: Mixture, estimate: np.ndarray) -> dict[str, float]:
    """SI-SDR, SDR, and what is installed."""
    found = {"si_sdr": float(_si_sdr(mixture.speech, estimate))}
    rest = mixture.speech + mixture.noise - estimate
    if rest.any() and mixture.noise.any():  # of the mixture itself nothing is left for the noise
        ratios = separation_ratios(np.stack([mixture.speech, mixture.noise]), np.stack([estimate, rest]))
        found |= {name: float(getattr(ratios, name)[0]) for name in ("sdr", "sir", "sar")}
    if find_spec("pesq") and find_spec("pystoi"):
        try:
            quality = speech_quality(mixture.speech, estimate, mixture.sample_rate)
            found |= {name: value for name, value in quality._asdict().items() if not np.isnan(value)}
        except InputError as error:  # of silence, say, which must not end the other files' run
            print(f"{mixture.name}: {error}")
    return found


def _si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    return separation_ratios(reference[None], estimate[None].astype(float)).si_sdr[0]


def measured(
    mixtures: Iterable[Mixture], systems: dict[str, Callable[[Mixture], np.ndarray]], file: Path
) -> list[dict[str, Any]]:
    """How good every system is on every mixture; lines that the file has already are not computed again.

    Raises:
        InputError: if the file is of other mixtures or lacks a system.
    """
    kept = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    entries = []
    for place, mixture in enumerate(mixtures):
        if place < len(kept):
            if kept[place] != kept[place] | mixture.name or not systems.keys() <= kept[place].keys():
                raise InputError(
                    f"{str(file)!r}, line {place + 1}: of another mixture or other systems; use another --out."
                )
            entries.append(kept[place])
            continue
        entry: dict[str, Any] = mixture.name | {"seconds": len(mixture.speech) / mixture.sample_rate}
        entry["noisy"] = measures(mixture, mixture.speech + mixture.noise)
        for name, system in systems.items():
            started = time.process_time()
            estimate = np.asarray(system(mixture), float)
            seconds = time.process_time() - started
            entry[name] = measures(mixture, estimate) | {"cpu_seconds": seconds}
        with file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
        entries.append(entry)
        print(place + 1, mixture.name, {n: round(entry[n]["si_sdr"], 1) for n in ("noisy", *systems)}, flush=True)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sound = parser.add_mutually_exclusive_group(required=True)
    sound.add_argument("corpus", type=Path, nargs="?")
    sound.add_argument("--manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--network", type=Path, help="by vbss train --model vae; by default the one that comes with vbss"
    )
    parser.add_argument("--utterances", type=int, default=12, help="of CORPUS")
    parser.add_argument("--split", default="test", help="of CORPUS")
    parser.add_argument("--systems", nargs="+")
    arguments = parser.parse_args()
    trained: Any = pretrained_speech() if arguments.network is None else load(arguments.network)
    check_protocol(
        arguments.out,
        network=fingerprint(tuple(jax.tree.leaves(eqx.filter(trained, eqx.is_array)))),
        sound=str((arguments.manifest or arguments.corpus).resolve()),
        split=None if arguments.manifest else arguments.split,
    )
    everyone = systems(trained)
    chosen = {name: system for name, system in everyone.items() if name in (arguments.systems or everyone)}
    if arguments.manifest:
        mixtures, report_of = read_pairs(arguments.manifest, trained.sample_rate), pairs_report
    else:
        corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
        mixtures, report_of = mix(corpus, arguments.split, arguments.utterances), corpus_report
    entries = measured(mixtures, chosen, arguments.out / "results.jsonl")
    report = report_of(entries, list(chosen))
    (arguments.out / "report.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
