"""Two known speakers, one microphone: autoencoders that read mixtures, speech models that refine it, and baselines.

    python benchmarks/monaural.py CORPUS --speakers F1,F2,...:M1,M2,... --out DIR

CORPUS is a folder with manifest.csv (file, speaker) and perhaps splits.csv, of whose train split no speaker may be. The
protocol is that of "Monaural audio source separation using variational autoencoders" on any speakers: every woman with
every man at 0 dB, the last two utterances of each (3 s at least, 5 s at most) for test, all others for training;
networks are of each speaker and know the speakers that may be heard, not the utterances. Writes DIR/networks (kept, and
not trained again), DIR/results.jsonl, a line for each mixture, and DIR/report.md: SDR, SIR, SAR of BSS Eval, and how
the codes' variance falls with the level of the speaker.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import soundfile
from jaxtyping import Float
from monaural_baselines import (
    Denoiser,
    MaskNetwork,
    learnt_spectra,
    separated,
    separated_by_spectra,
    separated_ideally,
    trained,
)
from monaural_report import report_of
from protocol import check_protocol

from vbss import load, pretrained_speech, save, separate_voices, train_speaker
from vbss.audio import STFT, Recording
from vbss.enhancement import estimate_voices, train_voice
from vbss.errors import InputError
from vbss.metrics import pairwise_ratios, separation_ratios
from vbss.scenes import SpeechCorpus
from vbss.scenes.corpus import read_table
from vbss.training import SpeechSpectra, TrainingSettings, VoiceMixtures

RATE, SHORTEST, LONGEST, NUM_TESTS = 16000, 3.0, 5.0, 2
SNRS = (-5, 0, 5, 10, 15, 20)  # dB, of the speaker whose codes' variance is told
_TIMES = 8  # mixtures of each stretch
_CONTEXT, _FRAMES = 17, 68
_SETTINGS = TrainingSettings(batch_size=16, patience=3, stop_after=5, max_epochs=40)
DEPTHS = {"513-64": (), "513-128-64": (128,), "513-256-128-64": (128, 256), "513-256-192-128-64": (128, 192, 256)}


class Speaker(NamedTuple):
    """One speaker's files, for training and for test."""

    name: str
    is_woman: bool
    heard: tuple[str, ...]
    tests: tuple[str, ...]


def speakers_of(corpus: SpeechCorpus, women: list[str], men: list[str]) -> list[Speaker]:
    """Both, with their utterances divided."""
    found = []
    for name in (*women, *men):
        long = [f for f in corpus.files[name] if soundfile.info(corpus.folder / f).duration >= SHORTEST]
        found.append(Speaker(name, name in women, tuple(long[:-NUM_TESTS]), tuple(long[-NUM_TESTS:])))
    return found


def check_unheard(folder: Path, names: list[str]) -> None:
    """Raise InputError for speakers from whom the network that comes with vbss learnt, where the corpus says whom."""
    splits = folder / "splits.csv"
    rows = read_table(splits, ("speaker", "split")) if splits.exists() else []
    heard = sorted({row["speaker"] for row in rows if row["split"] == "train"} & set(names))
    if heard:
        raise InputError(f"--speakers: {', '.join(heard)} may have trained the network of vbss: take others.")


def pairs_of(speakers: list[Speaker]) -> Iterator[tuple[Speaker, Speaker]]:
    """Every woman with every man."""
    for first in speakers:
        for second in speakers:
            if first.is_woman and not second.is_woman:
                yield first, second


def sources_of(corpus: SpeechCorpus, pair: tuple[Speaker, Speaker], number: int) -> Float[np.ndarray, "2 samples"]:
    """A test mixture's sources, of variance 1 each."""
    sounds = [soundfile.read(corpus.folder / speaker.tests[number])[0] for speaker in pair]
    length = min(*map(len, sounds), round(LONGEST * RATE))
    return np.stack([sound[:length] / sound[:length].std() for sound in sounds])


def networks_of(corpus: SpeechCorpus, speaker: Speaker, speakers: list[Speaker], folder: Path) -> dict[str, Any]:
    """All that is learnt of a speaker."""
    others = [other for other in speakers if other.is_woman != speaker.is_woman]
    stft = STFT.init(RATE)

    def speech(of: list[Speaker], num_frames: int) -> SpeechSpectra:
        files = {other.name: other.heard for other in of}
        return SpeechSpectra(SpeechCorpus(corpus.folder, files), stft=stft, num_frames=num_frames)

    def mixtures(num_frames: int, context: int) -> tuple[VoiceMixtures, VoiceMixtures]:
        heard, kept = speech([speaker], num_frames).held_out(10)
        heard_others, kept_others = speech(others, num_frames).held_out(10)
        options: dict[str, Any] = {"snr": (0.0, 0.0), "context": context}
        return (
            VoiceMixtures(heard, heard_others, num_items=_TIMES * len(heard), **options),
            VoiceMixtures(kept, kept_others, num_items=_TIMES * len(kept), seed=1, **options),
        )

    alone, corpora = speech([speaker], 64), mixtures(64, 1)
    makers: dict[str, Callable[[], Any]] = {
        f"vae {name}": lambda sizes=sizes: train_voice(*corpora, hidden_sizes=sizes, settings=_SETTINGS).voice
        for name, sizes in DEPTHS.items()
    }
    makers |= {
        "vae 17 frames": lambda: train_voice(*mixtures(_FRAMES, _CONTEXT), settings=_SETTINGS).voice,
        "speaker": lambda: (
            train_speaker(alone, speech(others, 64), start=pretrained_speech(), settings=_SETTINGS).speech
        ),
        "mask": lambda: trained(MaskNetwork, *corpora),
        "denoiser": lambda: trained(Denoiser, *corpora),
        "nmf": lambda: learnt_spectra(alone),
    }
    found = {}
    for name, make in makers.items():
        path = folder / f"{speaker.name} {name}.vbss".replace(" ", "_")
        if not path.exists():
            started = time.process_time()
            save(path, make())
            print(f"{speaker.name}, {name}: {time.process_time() - started:.0f} CPU s", flush=True)
        found[name] = load(path, MaskNetwork, Denoiser)
    return found


def systems(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Callable[[Float[np.ndarray, "2 n"]], Any]]:
    """By name, from a mixture's sources (whose sum is what is heard) to the estimates."""

    def pair(name: str) -> tuple[Any, Any]:
        return first[name], second[name]

    def recording(sources: np.ndarray) -> Recording:
        return Recording(sources.sum(0)[None].astype(np.float32), RATE)

    def sound(sources: np.ndarray) -> Any:
        return jnp.asarray(sources.sum(0), jnp.float32)

    stft = first["speaker"].stft
    found: dict[str, Callable[[np.ndarray], Any]] = {"mixture": lambda x: np.stack([x.sum(0)] * 2)}
    for name in (*(f"vae {depth}" for depth in DEPTHS), "vae 17 frames"):
        found[f"{name}, magnitudes"] = lambda x, n=name: estimate_voices(recording(x), pair(n), masks=False).sources
        found[f"{name}, shares"] = lambda x, n=name: estimate_voices(recording(x), pair(n)).sources
    for algorithm in ("encoder", "point", "langevin"):
        found[f"speakers' models, {algorithm}"] = lambda x, a=algorithm: separate_voices(
            recording(x), pair("speaker"), algorithm=a
        ).sources[:, 0]
    return found | {
        "denoising autoencoder, magnitudes": lambda x: separated(pair("denoiser"), stft, sound(x), False),
        "denoising autoencoder, shares": lambda x: separated(pair("denoiser"), stft, sound(x), True),
        "mask of a DNN": lambda x: separated(pair("mask"), stft, sound(x), True),
        "NMF": lambda x: separated_by_spectra(pair("nmf"), stft, sound(x)),
        "ideal ratio mask": lambda x: separated_ideally(stft, jnp.asarray(x, jnp.float32)),
    }


def measures(sources: Float[np.ndarray, "2 n"], estimates: Float[np.ndarray, "2 n"]) -> dict[str, list[float]]:
    """SDR, SIR, SAR of each speaker, whose estimate is known."""
    ratios = separation_ratios(sources, estimates)
    if (ratios.permutation == np.arange(2)).all():
        return {key: getattr(ratios, key).tolist() for key in ("sdr", "sir", "sar")}
    sdr, sir = pairwise_ratios(sources, estimates)
    return {"sdr": np.diag(sdr).tolist(), "sir": np.diag(sir).tolist(), "sar": ratios.sar[ratios.permutation].tolist()}


def variances(sources: Float[np.ndarray, "2 n"], first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Variances of the first speaker at each ratio: of codes, and of magnitudes or spectrum relative to their power."""
    names = ("vae 513-128-64, codes", "vae 513-128-64", "speaker's model, codes", "speaker's model")
    found: dict[str, list[float]] = {name: [] for name in names}
    for snr in SNRS:
        mixture = sources[0] + 10 ** (-snr / 20) * sources[1]
        recording = Recording(mixture[None].astype(np.float32), RATE)
        voice, speech = first["vae 513-128-64"], first["speaker"]
        heard = estimate_voices(recording, [voice])
        found["vae 513-128-64, codes"].append(float(heard.code_variance[0]))
        found["vae 513-128-64"].append(float(heard.variance[0]))
        power = jnp.abs(speech.stft.forward(jnp.asarray(mixture, jnp.float32))) ** 2
        found["speaker's model, codes"].append(float(jnp.exp(speech.encoder(power)[1]).mean()))
        separation = separate_voices(recording, [speech, second["speaker"]], algorithm="encoder")
        found["speaker's model"].append(float(10 ** (-separation.expected_sdr[0, 0] / 10)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--speakers", required=True, help="women, a colon, men; each separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    corpus = SpeechCorpus.read(arguments.corpus)
    women, men = (part.split(",") for part in arguments.speakers.split(":"))
    check_unheard(arguments.corpus, [*women, *men])
    speakers = speakers_of(corpus, women, men)
    folder = arguments.out / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    check_protocol(arguments.out, speakers=speakers, times=_TIMES, settings=repr(_SETTINGS))
    known = {speaker.name: networks_of(corpus, speaker, speakers, folder) for speaker in speakers}
    file = arguments.out / "results.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(entry["woman"], entry["man"], entry["number"]) for entry in entries}
    for number in range(NUM_TESTS):
        for pair in pairs_of(speakers):
            woman, man = (speaker.name for speaker in pair)
            if (woman, man, number) in done:
                continue
            sources = sources_of(corpus, pair, number)
            entry: dict[str, Any] = {"woman": woman, "man": man, "number": number, "systems": {}}
            for name, system in systems(known[woman], known[man]).items():
                started = time.process_time()
                estimates = np.asarray(system(sources), float)
                seconds = time.process_time() - started
                entry["systems"][name] = measures(sources, estimates) | {"cpu_seconds": seconds}
            both = known[woman], known[man]
            entry["variances"] = [variances(sources, *both), variances(sources[::-1], *both[::-1])]
            with file.open("a") as lines:
                lines.write(json.dumps(entry) + "\n")
            entries.append(entry)
            print(
                woman,
                man,
                number,
                {n: round(float(np.mean(v["sdr"])), 1) for n, v in entry["systems"].items()},
                flush=True,
            )
    report = report_of(entries, SNRS)
    (arguments.out / "report.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
