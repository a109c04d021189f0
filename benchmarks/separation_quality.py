"""Separation and localisation quality of `vbss.separate` on a folder of real speech.

    python benchmarks/separation_quality.py CORPUS [--split test] [--scenes two8:clean:20 two8:30:20 ...]

CORPUS holds manifest.csv (columns file, kind, speaker, duration_s; paths relative to CORPUS) and splits.csv (speaker,
split), and for the measured room `array/r3vival` (7-channel responses at 16 kHz).

A scene is NAME:NOISE:COUNT, the noise being `clean` or the signal-to-noise ratio in dB. Simulated rooms: 4 microphones
on a circle of 8 cm diameter, 5 x 5 x 3 to 10 x 10 x 4 m, reverberation time 0.2 to 0.4 s, sources 1 to 2 m away and at
least 20 degrees apart, levels -5 to 5 dB, 5 s.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal
from scipy.optimize import linear_sum_assignment

from vbss.audio import Recording, read_microphone_positions
from vbss.metrics import angular_error, signal_to_distortion_ratio
from vbss.scenes import simulate_room
from vbss.separation import separate

_SECONDS = 5.0


@dataclass(frozen=True)
class Kind:
    """A family of scenes; `stream` keeps its random draws apart from those of the others."""

    num_sources: int
    sample_rate: int
    stream: int
    measured: bool = False


KINDS = {
    "two8": Kind(2, 8000, 6),
    "two16": Kind(2, 16000, 5),
    "three8": Kind(3, 8000, 4),
    "r3vival100": Kind(2, 16000, 1, measured=True),
}
# R3VIVAL's microphones 1 to 6 (front, back, right and left above and below) on a sphere of 10 cm; azimuths clockwise.
_R3VIVAL = np.array([[1, 0, 0], [-1, 0, 0], [0, -1, 1], [0, 1, 1], [0, -1, -1], [0, 1, -1]], float)
_R3VIVAL *= 0.05 / np.linalg.norm(_R3VIVAL, axis=1, keepdims=True)


def _speech_files(corpus: Path, split: str) -> dict[str, list[str]]:
    with open(corpus / "splits.csv") as rows:
        speakers = {row["speaker"] for row in csv.DictReader(rows) if row["split"] == split}
    files: dict[str, list[str]] = {}
    with open(corpus / "manifest.csv") as rows:
        for row in csv.DictReader(rows):
            usable = row["kind"].startswith("speech") and float(row["duration_s"]) >= _SECONDS + 1
            if usable and row["speaker"] in speakers:
                files.setdefault(row["speaker"], []).append(row["file"])
    return {speaker: sorted(names) for speaker, names in sorted(files.items())}


def _excerpt(path: Path, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Five seconds in which the speaker speaks at least 60 % of the time, if 50 draws find them."""
    samples, rate = soundfile.read(path)
    if rate != sample_rate:
        common = np.gcd(rate, sample_rate)
        samples = signal.resample_poly(samples, sample_rate // common, rate // common)
    length = int(_SECONDS * sample_rate)
    for _ in range(50):
        begin = rng.integers(0, len(samples) - length + 1)
        excerpt = samples[begin : begin + length]
        power = (excerpt[: length // 400 * 400].reshape(-1, 400) ** 2).mean(1)
        if (power > 1e-3 * np.quantile(power, 0.95)).mean() > 0.6:
            break
    return excerpt - excerpt.mean()


def _apart(rng: np.random.Generator, num_sources: int) -> np.ndarray:
    while True:
        azimuths = rng.uniform(-np.pi, np.pi, num_sources)
        distances = np.abs(np.angle(np.exp(1j * (azimuths[:, None] - azimuths))))
        if np.all(distances[np.triu_indices(num_sources, 1)] >= np.radians(20)):
            return azimuths


def _scene(corpus: Path, files: dict[str, list[str]], kind: Kind, index: int):
    """Images (sources, microphones, samples), positions and azimuths of one scene."""
    rng = np.random.default_rng([0, kind.stream, index])
    speakers = rng.choice(sorted(files), kind.num_sources, replace=False)
    if kind.measured:
        rng.choice(("100",))  # the room's absorption, of which there is one here
        clockwise = 30 * rng.choice(12, kind.num_sources, replace=False)
        images = []
        for speaker, azimuth in zip(speakers, clockwise, strict=True):
            response, rate = soundfile.read(corpus / f"array/r3vival/abs100_az{azimuth:03d}_1.5m_7ch_16k.flac")
            source = _excerpt(corpus / str(rng.choice(files[speaker])), rate, rng)
            images.append(signal.fftconvolve(source[:, None], response[:, :6], axes=0)[: len(source)].T)
        positions, azimuths = _R3VIVAL, np.angle(np.exp(-1j * np.radians(clockwise)))
    else:
        positions = read_microphone_positions("circular:4:0.08")
        sources = [_excerpt(corpus / str(rng.choice(files[s])), kind.sample_rate, rng) for s in speakers]
        room_size = tuple(rng.uniform([5, 5, 3], [10, 10, 4]))
        reverberation_time, azimuths = rng.uniform(0.2, 0.4), _apart(rng, kind.num_sources)
        images = simulate_room(
            np.stack(sources),
            kind.sample_rate,
            positions,
            azimuths,
            room_size=room_size,
            reverberation_time=reverberation_time,
            source_distance=rng.uniform(1.0, 2.0),
        ).images
    gains = [0.0, *rng.uniform(-5, 5, kind.num_sources - 1)]
    levelled = [x * 10 ** (gain / 20) * 0.05 / x[0].std() for x, gain in zip(images, gains, strict=True)]
    return np.stack(levelled), positions, azimuths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="test")
    default = ["two8:clean:20", "two8:30:20", "two16:30:10", "r3vival100:30:10"]
    parser.add_argument("--scenes", nargs="+", default=default, help=f"NAME:NOISE:COUNT, NAME among {', '.join(KINDS)}")
    arguments = parser.parse_args()
    files = _speech_files(arguments.corpus, arguments.split)
    for line in arguments.scenes:
        name, noise, count = line.split(":")
        ratios, errors, statuses = [], [], []
        for index in range(int(count)):
            images, positions, azimuths = _scene(arguments.corpus, files, KINDS[name], index)
            mixture = images.sum(0)
            if noise != "clean":
                white = np.random.default_rng(index).standard_normal(mixture.shape)
                mixture = mixture + white * np.sqrt(np.mean(mixture**2) / 10 ** (float(noise) / 10))
            recording = Recording(mixture.astype(np.float32), KINDS[name].sample_rate)
            result = separate(recording, positions, len(images))
            ratios.append(signal_to_distortion_ratio(images[:, 0], result.sources.astype(float))[0])
            distances = np.degrees(angular_error(azimuths[:, None], result.directions[None]))
            errors.append(distances[linear_sum_assignment(distances)])
            statuses.append(result.solution.status.name)
        within = 100 * np.mean(np.asarray(errors) <= 10)
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        print(
            f"{line}: SDR {np.mean(ratios):.2f} ± {np.std(ratios):.2f} dB, within 10 degrees {within:.0f} %, {counts}"
        )


if __name__ == "__main__":
    main()
