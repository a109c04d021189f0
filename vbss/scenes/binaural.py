"""Random scenes as a head hears them: speech of a corpus from measured directions."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float

from vbss.errors import InputError, positive, whole_number
from vbss.scenes.corpus import SpeechCorpus
from vbss.scenes.excerpts import draw_excerpts
from vbss.scenes.heads import HeadResponses
from vbss.scenes.noise import sensor_noise
from vbss.scenes.room import convolve

_LEVEL = 0.05  # root mean square of the first source over both ears
_LARGEST_NOISE = 200  # dB above or below a source
_ATTEMPTS = 200
# Each purpose draws from a stream of its own, so that one draw more or less changes nothing else.
_SPEECH, _DIRECTIONS, _LEVELS, _SENSOR_NOISE = range(4)


@dataclass(frozen=True)
class BinauralCondition:
    """What the scenes of a binaural experiment have in common.

    Attributes:
        num_sources: 1 to 3.
        sample_rate: Hz, at least 8000.
        seconds: length, s, at least 1.
        smallest_angle: between two sources, degrees on the great circle.
        level: smallest and largest level of the later sources against the first, both ears together, dB.
        sensor_noise: white noise, independent between the ears, so many dB below the first source; `None` for none.

    Raises:
        InputError: if a value is impossible, by its name.
    """

    num_sources: int = 2
    sample_rate: int = 16000
    seconds: float = 2.5
    smallest_angle: float = 20.0
    level: tuple[float, float] = (0.0, 0.0)
    sensor_noise: float | None = 40.0

    def __post_init__(self):
        object.__setattr__(self, "num_sources", whole_number("num_sources", self.num_sources, 1, 3))
        object.__setattr__(self, "sample_rate", whole_number("sample_rate", self.sample_rate, 8000))
        if positive("seconds", self.seconds) < 1:
            raise InputError(f"seconds must be at least 1, got {self.seconds}.")
        if not 0 <= self.smallest_angle <= 180:
            raise InputError(f"smallest_angle must be from 0 to 180 degrees, got {self.smallest_angle}.")
        smallest, largest = self.level
        if not (isfinite(smallest) and isfinite(largest) and smallest <= largest):
            raise InputError(f"level must be its smallest and its largest value, got {smallest} and {largest}.")
        if self.sensor_noise is not None and not abs(self.sensor_noise) <= _LARGEST_NOISE:
            raise InputError(
                f"sensor_noise must be a level in dB below a source, from -{_LARGEST_NOISE} to {_LARGEST_NOISE}, or "
                f"None, got {self.sensor_noise}."
            )


@dataclass(frozen=True)
class BinauralScene:
    """What two ears hear, of which the truth is known; the channels are (left, right).

    Attributes:
        mixture: float32, exactly the images' sum plus the noise.
        images: each source alone at each ear, float32.
        noise: of the sensors, float32.
        azimuths: of the sources, rad in (-pi, pi], counter-clockwise from the front.
        elevations: rad, positive above.
        sample_rate: Hz.
        description: how the scene was made, which JSON can hold.
    """

    mixture: Float[np.ndarray, "2 samples"]
    images: Float[np.ndarray, "sources 2 samples"]
    noise: Float[np.ndarray, "2 samples"]
    azimuths: Float[np.ndarray, " sources"]
    elevations: Float[np.ndarray, " sources"]
    sample_rate: int
    description: dict[str, Any]


def random_binaural_scene(
    corpus: SpeechCorpus, heads: HeadResponses, condition: BinauralCondition, *, seed: int = 0, index: int = 0
) -> BinauralScene:
    """One of endlessly many scenes of a condition; the same arguments give the same scene.

    Every source is an excerpt of a different speaker of the corpus, who speaks for at least 60 % of it, from one of the
    directions in `heads`. Images do not depend on the noise: with other noise, or none, in the condition, the scene of
    the same `seed` and `index` is the same but for its noise.

    Args:
        corpus: the speech.
        heads: responses from the directions to draw from, such as `heads.split("test")`.
        condition: what is common to the scenes.
        seed: of the series of scenes.
        index: number of the scene in its series, from 0.

    Returns:
        The scene. Its `description` tells what was drawn: `sources` (each with speaker, file, begin_seconds,
        azimuth_degrees, elevation_degrees and level_db), heads, seed, index, sample_rate, seconds and sensor_noise_db.

    Raises:
        InputError: if the corpus has too few speakers with long enough files, or `heads` no directions so far apart.
    """
    seed, index = whole_number("seed", seed, 0), whole_number("index", index, 0)
    count, sample_rate = condition.num_sources, condition.sample_rate
    sources, origins = draw_excerpts(corpus, count, sample_rate, condition.seconds, _stream(seed, index, _SPEECH))
    chosen = _choose_directions(heads, count, condition.smallest_angle, _stream(seed, index, _DIRECTIONS))
    directions = heads.take(chosen).resampled(sample_rate)
    levels = np.array([0.0, *_stream(seed, index, _LEVELS).uniform(*condition.level, size=count - 1)])
    images = np.concatenate(
        [convolve(source[None], response[None]) for source, response in zip(sources, directions.responses, strict=True)]
    )
    powers = np.mean(images**2, axis=(1, 2), keepdims=True)
    images = (_LEVEL * 10 ** (levels[:, None, None] / 20) * images / np.sqrt(powers)).astype(np.float32)
    noise = np.zeros(images.shape[1:], np.float32)
    if condition.sensor_noise is not None:
        power = _LEVEL**2 / 10 ** (condition.sensor_noise / 10)
        noise = sensor_noise((2, images.shape[-1]), power, _stream(seed, index, _SENSOR_NOISE)).astype(np.float32)
    described = [
        {**origin, "azimuth_degrees": azimuth, "elevation_degrees": elevation, "level_db": level}
        for origin, azimuth, elevation, level in zip(
            origins,
            np.degrees(directions.azimuths).round(6).tolist(),
            np.degrees(directions.elevations).round(6).tolist(),
            levels.tolist(),
            strict=True,
        )
    ]
    description = {
        "seed": seed,
        "index": index,
        "sample_rate": sample_rate,
        "seconds": condition.seconds,
        "heads": heads.name,
        "sources": described,
        "sensor_noise_db": condition.sensor_noise,
    }
    return BinauralScene(
        images.sum(0) + noise, images, noise, directions.azimuths, directions.elevations, sample_rate, description
    )


def _stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, purpose)))


def _choose_directions(
    heads: HeadResponses, count: int, smallest_angle: float, generator: np.random.Generator
) -> list[int]:
    """Indices of `count` directions at least `smallest_angle` (degrees) from each other."""
    vectors = heads.vectors
    # Rounding must not part what is exactly as far apart as it should be.
    largest_cosine = np.cos(np.radians(smallest_angle)) + 1e-9
    for _ in range(_ATTEMPTS):
        chosen: list[int] = []
        for candidate in generator.permutation(len(heads)).tolist():
            if not chosen or (vectors[chosen] @ vectors[candidate]).max() <= largest_cosine:
                chosen.append(candidate)
            if len(chosen) == count:
                return chosen
    raise InputError(
        f"smallest_angle of {smallest_angle} degrees: heads {heads.name!r} has no {count} of its {len(heads)} "
        "directions so far apart."
    )
