"""Noisy speech of which the speech is known: mixed from a corpus, or as a test set brings it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float

from vbss.audio import read_recording, resample
from vbss.errors import InputError
from vbss.scenes import SpeechCorpus
from vbss.scenes.corpus import read_table

RATE, SECONDS = 16000, 5.0
SNRS = (-5, 0, 5)
KINDS = ("white", "pink", "recorded", "babble")
_VOICES = 6  # of babble


class Mixture(NamedTuple):
    """Speech, noise, their rate in Hz, and what they are."""

    speech: Float[np.ndarray, " samples"]
    noise: Float[np.ndarray, " samples"]
    sample_rate: int
    name: dict[str, Any]


def read_pairs(manifest: Path, sample_rate: int) -> Iterator[Mixture]:
    """The pairs of a ready-made test set, at this rate.

    Args:
        manifest: a CSV file with the columns clean and noisy, sound files of one channel relative to its folder, and
            perhaps name (by default that of the noisy file), kind and snr, which are kept as they are.
        sample_rate: Hz.

    Raises:
        InputError: if there is no such table or file, or the two of a pair differ in rate or shape or have several
            channels.
    """
    for row in read_table(manifest, ("clean", "noisy")):
        clean, noisy = (read_recording(manifest.parent / row[column]) for column in ("clean", "noisy"))
        shapes = [(*sound.samples.shape, sound.sample_rate) for sound in (clean, noisy)]
        if shapes[0] != shapes[1] or len(clean.samples) != 1:
            raise InputError(
                f"{row['clean']!r} and {row['noisy']!r} must have one channel each and the same length and rate, got "
                f"(channels, samples, Hz) {shapes[0]} and {shapes[1]}."
            )
        speech, sound = (resample(each, sample_rate).samples[0].astype(float) for each in (clean, noisy))
        name = {"name": row.get("name") or Path(row["noisy"]).stem}
        name |= {column: row[column] for column in ("kind", "snr") if column in row}
        yield Mixture(speech, sound - speech, sample_rate, name)


def mix(corpus: SpeechCorpus, split: str, count: int) -> Iterator[Mixture]:
    """Of every utterance in every kind of noise at every ratio.

    Raises:
        InputError: if there are fewer than two speakers whose first file has 2 s of sound at 16 kHz.
    """
    voices = [sound for sound in map(_utterance, _files(corpus)) if sound is not None]
    if len(voices) < 2:
        raise InputError(f"{str(corpus.folder)!r} has no two speakers whose first file has 2 s of sound at {RATE} Hz.")
    recorded = _recorded_noises(corpus.folder / "noise", split)
    for number in range(count):
        speech = voices[number % len(voices)]
        for kind in KINDS:
            generator = np.random.default_rng((number, KINDS.index(kind)))
            noise, told = _noise(kind, len(speech), generator, recorded, voices, number)
            noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2))
            for snr in SNRS:
                name = {"utterance": number, "kind": kind, "noise": told, "snr": snr}
                yield Mixture(speech, noise * 10 ** (-snr / 20), RATE, name)


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
