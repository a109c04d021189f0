"""Speech enhancement: every algorithm on one model, and peers, at several signal-to-noise ratios.

    python benchmarks/enhancement.py CORPUS --out DIR [--network FILE] [--utterances 12] [--split test]

CORPUS is a folder with manifest.csv (file, speaker, kind) and splits.csv; the speakers of the split are heard, each
with one utterance of at most 5 s, at 16 kHz. Noises: white, pink and the babble of six other speakers of the split, and
the recordings of CORPUS/noise (those of the split: files whose place in the sorted list is a multiple of 3 are test).
All systems hear the same. Writes DIR/results.jsonl, a line for each mixture, which are kept and not computed again, and
DIR/report.md. PESQ and STOI need the extra metrics, the peer noisereduce its own package; what is not installed has no
column or row.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float
from paired import mean_interval, paired_difference

from vbss import enhance, load, pretrained_speech
from vbss.audio import Recording
from vbss.enhancement import ALGORITHMS
from vbss.metrics import separation_ratios, speech_quality
from vbss.models.nmf import itakura_saito_nmf
from vbss.scenes import SpeechCorpus

RATE, SECONDS = 16000, 5.0
SNRS = (-5, 0, 5)
KINDS = ("white", "pink", "recorded", "babble")
_VOICES = 6  # of babble


class Mixture(NamedTuple):
    """Speech, noise, and what they are."""

    speech: Float[np.ndarray, " samples"]
    noise: Float[np.ndarray, " samples"]
    name: dict[str, Any]


def mixtures(corpus: SpeechCorpus, split: str, count: int) -> Iterator[Mixture]:
    """Of every utterance in every kind of noise at every ratio."""
    voices = [sound for sound in map(_utterance, _files(corpus)) if sound is not None]
    recorded = _recorded_noises(corpus.folder / "noise", split)
    for number in range(count):
        speech = voices[number % len(voices)]
        for kind in KINDS:
            generator = np.random.default_rng((number, KINDS.index(kind)))
            noise, told = _noise(kind, len(speech), generator, recorded, voices, number)
            noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2))
            for snr in SNRS:
                name = {"utterance": number, "kind": kind, "noise": told, "snr": snr}
                yield Mixture(speech, noise * 10 ** (-snr / 20), name)


def _files(corpus: SpeechCorpus) -> list[Path]:
    return [corpus.folder / files[0] for files in corpus.files.values()]


def _utterance(file: Path) -> Float[np.ndarray, " samples"] | None:
    samples, rate = soundfile.read(file, always_2d=True)
    if rate != RATE or len(samples) < 2 * RATE:
        return None
    return samples[: round(SECONDS * RATE), 0]


def _recorded_noises(folder: Path, split: str) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
    return [file for place, file in enumerate(files) if (place % 3 == 0) == (split == "test")]


def _noise(
    kind: str,
    length: int,
    generator: np.random.Generator,
    recorded: list[Path],
    voices: list[np.ndarray],
    number: int,
) -> tuple[Float[np.ndarray, " samples"], str]:
    if kind == "recorded":
        file = recorded[number % len(recorded)]
        samples = soundfile.read(file, always_2d=True)[0][:, 0]
        return np.resize(samples, length), file.stem
    if kind == "babble":
        others = [voice for place, voice in enumerate(voices) if place != number % len(voices)]
        chosen = generator.permutation(len(others))[:_VOICES]
        return sum(np.resize(others[i] / others[i].std(), length) for i in chosen), kind
    white = generator.standard_normal(length)
    if kind == "white":
        return white, kind
    frequencies = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 50)
    return np.fft.irfft(np.fft.rfft(white) / np.sqrt(frequencies), length), kind


def systems(trained: Any) -> dict[str, Callable[[Mixture], np.ndarray]]:
    """By name, from a mixture to its speech."""

    def ours(algorithm: str) -> Callable[[Mixture], np.ndarray]:
        def speech(mixture: Mixture) -> np.ndarray:
            recording = Recording((mixture.speech + mixture.noise)[None].astype(np.float32), RATE)
            return enhance(recording, trained, algorithm=algorithm).speech[0]

        return speech

    found = {algorithm: ours(algorithm) for algorithm in ALGORITHMS}
    found["power subtraction of the noise's own NMF"] = lambda mixture: _wiener(mixture, trained.stft)
    if find_spec("noisereduce"):
        import noisereduce

        for name, is_stationary in (("noisereduce, stationary", True), ("noisereduce, adaptive", False)):
            found[name] = lambda mixture, is_stationary=is_stationary: noisereduce.reduce_noise(
                y=mixture.speech + mixture.noise, sr=RATE, stationary=is_stationary
            )
    return found


def _wiener(mixture: Mixture, stft: Any) -> np.ndarray:
    """Of the noise's own NMF of 8 spectra, which nobody else is told, and the power that is left."""
    import jax
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
    if rest.any():  # of the mixture itself nothing is left for the noise
        ratios = separation_ratios(np.stack([mixture.speech, mixture.noise]), np.stack([estimate, rest]))
        found |= {name: float(getattr(ratios, name)[0]) for name in ("sdr", "sir", "sar")}
    if find_spec("pesq") and find_spec("pystoi"):
        found |= speech_quality(mixture.speech, estimate, RATE)._asdict()
    return found


def _si_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    return separation_ratios(reference[None], estimate[None].astype(float)).si_sdr[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--network", type=Path, help="by vbss train --model vae; by default the one that comes with vbss"
    )
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--split", default="test")
    parser.add_argument("--systems", nargs="+")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    trained: Any = pretrained_speech() if arguments.network is None else load(arguments.network)
    corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
    chosen = {
        name: system for name, system in systems(trained).items() if name in (arguments.systems or systems(trained))
    }
    file = arguments.out / "results.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for place, mixture in enumerate(mixtures(corpus, arguments.split, arguments.utterances)):
        if place < len(entries):
            continue
        entry: dict[str, Any] = dict(mixture.name)
        entry["noisy"] = measures(mixture, mixture.speech + mixture.noise)
        for name, system in chosen.items():
            started = time.process_time()
            estimate = np.asarray(system(mixture), float)
            seconds = time.process_time() - started
            entry[name] = measures(mixture, estimate) | {"cpu_seconds": seconds}
        with file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
        entries.append(entry)
        print(place + 1, mixture.name, {n: round(entry[n]["si_sdr"], 1) for n in ("noisy", *chosen)}, flush=True)
    report = _report(entries, list(chosen))
    (arguments.out / "report.md").write_text(report)
    print(report)


def _report(entries: list[dict[str, Any]], names: list[str]) -> str:
    """The gain in SI-SDR with its interval over utterances, by noise and ratio, and all other measures at 0 dB."""
    lines = []
    for kind in KINDS:
        lines += [f"SI-SDR gain, dB, {kind}", "", "| system | " + " | ".join(f"{snr} dB" for snr in SNRS) + " |"]
        lines.append("|---|" + "---|" * len(SNRS))
        for name in names:
            cells = []
            for snr in SNRS:
                gains = {
                    e["utterance"]: e[name]["si_sdr"] - e["noisy"]["si_sdr"]
                    for e in entries
                    if e["kind"] == kind and e["snr"] == snr
                }
                cells.append("{:.1f} [{:.1f}, {:.1f}]".format(*mean_interval(gains)[:3]))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["SI-SDR gain, dB, steady noise (white and pink) at 0 dB, mean over both", ""]
    for name in names:
        gains: dict[int, list[float]] = {}
        for e in entries:
            if e["kind"] in ("white", "pink") and e["snr"] == 0:
                gains.setdefault(e["utterance"], []).append(e[name]["si_sdr"] - e["noisy"]["si_sdr"])
        means = {utterance: float(np.mean(both)) for utterance, both in gains.items()}
        lines.append("- {}: {:.1f} [{:.1f}, {:.1f}]".format(name, *mean_interval(means)[:3]))
    lines.append("")
    still = [e for e in entries if e["kind"] != "babble" and e["snr"] == 0]
    columns = [key for key in entries[0][names[0]] if key != "cpu_seconds"]
    lines += ["At 0 dB, all noises but babble", "", "| system | " + " | ".join(columns) + " | CPU s per s of sound |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    for name in ("noisy", *names):
        cells = [f"{np.mean([e[name].get(key, np.nan) for e in still]):.2f}" for key in columns]
        seconds = "" if name == "noisy" else f"{np.median([e[name]['cpu_seconds'] for e in entries]) / SECONDS:.2f}"
        lines.append(f"| {name} | " + " | ".join([*cells, seconds]) + " |")
    lines.append("")
    for ours, theirs in (("langevin", "mcem"), ("langevin", "vem"), ("mcem", "point")):
        if ours in names and theirs in names:
            values = [{i: e[name]["si_sdr"] for i, e in enumerate(still)} for name in (ours, theirs)]
            mean, low, high, count = paired_difference(*values)
            lines.append(
                f"{ours} - {theirs}, 0 dB, no babble: {mean:+.2f} [{low:.2f}, {high:.2f}] dB, {count} mixtures"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
