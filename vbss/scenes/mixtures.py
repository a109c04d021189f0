"""Random scenes of a given condition: speech of a corpus in simulated or measured rooms."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from vbss.audio import read_microphone_positions
from vbss.errors import InputError, one_of, whole_number
from vbss.scenes.babble import draw_babble
from vbss.scenes.cache import cache_file, read_arrays, write_arrays
from vbss.scenes.corpus import SpeechCorpus
from vbss.scenes.directions import choose_azimuths, draw_azimuths
from vbss.scenes.excerpts import draw_excerpts
from vbss.scenes.measured import MeasuredResponses
from vbss.scenes.noise import diffuse_babble, diffuse_noise, sensor_noise
from vbss.scenes.room import Scene, convolve, simulate_room

_CACHE_FORMAT = 1  # another number for another way of making scenes
_LARGEST_NOISE = 200  # dB above or below the mixture
_LEVEL = 0.05  # root mean square of the first source at the first microphone
# Each purpose draws from a stream of its own, so that one draw more or less changes nothing else.
_SPEECH, _ROOM, _DIRECTIONS, _LEVELS, _SENSOR_NOISE, _DIFFUSE_NOISE, _BABBLE = range(7)
_Draws = Callable[[int], np.random.Generator]  # the stream of a purpose
_NOT_IN_IMAGES = (
    "microphones",
    "sensor_noise",
    "diffuse_noise",
    "babble",
    "responses",
)  # of a condition, as it is written


@dataclass(frozen=True)
class Condition:
    """What the scenes of an experiment have in common.

    The defaults are the simulated condition of Bando et al., "Deep Bayesian Unsupervised Source Separation Based on a
    Complex Gaussian Mixture Model" (2019), with distances and angles where the paper gives none.

    Attributes:
        num_sources: 2 to 4.
        sample_rate: Hz, at least 8000.
        seconds: length, s, at least 1.
        microphones: the array, as `vbss.audio.read_microphone_positions` takes it; not used with `responses`.
        smallest_room: length, width and height, m; those of the room are drawn between these and the next.
        largest_room: m.
        reverberation_time: smallest and largest, s.
        source_distance: smallest and largest distance of a source from the array's centre, m.
        smallest_angle: between two sources, degrees.
        level: smallest and largest level of the later sources against the first at the first microphone, dB.
        sensor_noise: white noise, independent between microphones, so many dB below the images' sum; `None` for none.
        diffuse_noise: noise from all directions alike, so many dB below the images' sum; `None` for none.
        babble: voices of other speakers of the corpus from all directions alike, eight times as many as microphones, so
            many dB below the images' sum; `None` for none.
        responses: folder of measured responses (see `MeasuredResponses.read`) in place of simulated rooms: array,
            rooms, distances and possible azimuths are then the set's.
        room: of the measured ones; `None` for one drawn at random.

    Raises:
        InputError: if a value is impossible, by its name.
    """

    num_sources: int = 2
    sample_rate: int = 8000
    seconds: float = 5.0
    microphones: str | Path = "circular:4:0.08"
    smallest_room: tuple[float, float, float] = (5.0, 5.0, 3.0)
    largest_room: tuple[float, float, float] = (10.0, 10.0, 4.0)
    reverberation_time: tuple[float, float] = (0.2, 0.4)
    source_distance: tuple[float, float] = (1.0, 2.0)
    smallest_angle: float = 20.0
    level: tuple[float, float] = (-5.0, 5.0)
    sensor_noise: float | None = None
    diffuse_noise: float | None = None
    babble: float | None = None
    responses: str | Path | None = None
    room: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "num_sources", whole_number("num_sources", self.num_sources, 2, 4))
        object.__setattr__(self, "sample_rate", whole_number("sample_rate", self.sample_rate, 8000))
        if not 1 <= self.seconds < np.inf:
            raise InputError(f"seconds must be at least 1, got {self.seconds}.")
        if not 0 <= self.smallest_angle * self.num_sources < 360:
            raise InputError(
                f"smallest_angle must leave room for {self.num_sources} sources around the array, got "
                f"{self.smallest_angle} degrees."
            )
        for name in ("reverberation_time", "source_distance", "level"):
            smallest, largest = getattr(self, name)
            if not (isfinite(smallest) and isfinite(largest) and smallest <= largest):
                raise InputError(f"{name} must be its smallest and its largest value, got {smallest} and {largest}.")
        smallest, largest = np.array(self.smallest_room), np.array(self.largest_room)
        is_range = smallest.shape == largest.shape == (3,) and np.all((0 < smallest) & (smallest <= largest))
        if not (is_range and np.all(largest < np.inf)):
            raise InputError(
                f"smallest_room must be three lengths in m, none above those of largest_room, got {self.smallest_room} "
                f"and {self.largest_room}."
            )
        for name in ("sensor_noise", "diffuse_noise", "babble"):
            level = getattr(self, name)
            if level is not None and not abs(level) <= _LARGEST_NOISE:
                raise InputError(
                    f"{name} must be a level in dB below the mixture, from -{_LARGEST_NOISE} to {_LARGEST_NOISE}, or "
                    f"None, got {level}."
                )
        if self.room is not None and self.responses is None:
            raise InputError(f"room {self.room!r} is one of measured responses: name their folder in responses.")


def random_scene(
    corpus: SpeechCorpus, condition: Condition, *, seed: int = 0, index: int = 0, cache: str | Path | None = None
) -> Scene:
    """One of endlessly many scenes of a condition; the same arguments give the same scene.

    Every source is an excerpt of a different speaker of the corpus, who speaks for at least 60 % of it. Images,
    directions and all else do not depend on the noise: with other noise, or none, in the condition, the scene of the
    same `seed` and `index` is the same but for its noise.

    Args:
        corpus: the speech.
        condition: what is common to the scenes.
        seed: of the series of scenes.
        index: number of the scene in its series, from 0.
        cache: folder where the images are stored, and taken from if they are there. What is stored of another corpus,
            condition or set of responses is not used, and a broken file is replaced.

    Returns:
        The scene, float32. Its `description` tells what was drawn: `sources` (each with speaker, file, begin_seconds,
        azimuth_degrees and level_db), `room` (size, reverberation_time and source_distances, or responses and name),
        seed, index, sample_rate, seconds, microphone_positions, sensor_noise_db, diffuse_noise_db and babble_db.

    Raises:
        InputError: if the corpus has too few speakers with long enough files, a room is too small for the sources or
            too large for the reverberation time, or the responses do not fit the condition.
    """
    seed, index = whole_number("seed", seed, 0), whole_number("index", index, 0)
    responses = None if condition.responses is None else MeasuredResponses.read(condition.responses)
    if responses is None:
        positions = read_microphone_positions(condition.microphones)
    else:
        positions = responses.microphone_positions
    draws = partial(_stream, seed, index)

    file = None if cache is None else cache_file(cache, _origin(corpus, condition, positions, responses, seed, index))
    arrays = None if file is None else read_arrays(file, ("images", "azimuths", "description"))
    if arrays is None:
        arrays = _draw_images(corpus, condition, positions, responses, draws)
        if file is not None:
            write_arrays(file, arrays)

    images = arrays["images"]
    clean = images.sum(axis=0)
    described = json.loads(str(arrays["description"]))
    speakers = frozenset(source["speaker"] for source in described["sources"])
    noise = _draw_noise(clean, condition, positions, draws, corpus, speakers)
    description = {
        "seed": seed,
        "index": index,
        "sample_rate": condition.sample_rate,
        "seconds": condition.seconds,
        "microphone_positions": (positions.round(9) + 0.0).tolist(),  # whole nanometres, and no -0
        **described,
        "sensor_noise_db": condition.sensor_noise,
        "diffuse_noise_db": condition.diffuse_noise,
        "babble_db": condition.babble,
    }
    return Scene(clean + noise, images, noise, condition.sample_rate, positions, arrays["azimuths"], description)


def _stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, purpose)))


def _origin(corpus, condition, positions, responses, seed, index) -> dict[str, Any]:
    """All that the images depend on."""
    return {
        "format": _CACHE_FORMAT,
        "made_by": {name: version(name) for name in ("numpy", "pyroomacoustics", "scipy", "soxr")},
        "corpus": corpus.fingerprint,
        "responses": None if responses is None else responses.fingerprint,
        "positions": positions.tolist(),
        "condition": {name: value for name, value in asdict(condition).items() if name not in _NOT_IN_IMAGES},
        "seed": seed,
        "index": index,
    }


def _draw_images(corpus, condition, positions, responses, draws: _Draws) -> dict[str, np.ndarray]:
    """Images (float32), azimuths and the part of the description that belongs to them (JSON)."""
    sources, origins = draw_excerpts(
        corpus, condition.num_sources, condition.sample_rate, condition.seconds, draws(_SPEECH)
    )
    if responses is None:
        images, azimuths, room = _in_simulated_room(sources, condition, positions, draws)
    else:
        images, azimuths, room = _in_measured_room(sources, condition, responses, draws)
    levels = np.array([0.0, *draws(_LEVELS).uniform(*condition.level, size=len(sources) - 1)])
    gains = _LEVEL * 10 ** (levels / 20) / np.sqrt(np.mean(images[:, 0] ** 2, axis=-1))
    degrees = (np.degrees(azimuths) % 360).round(6)
    described = [
        {**origin, "azimuth_degrees": azimuth, "level_db": level}
        for origin, azimuth, level in zip(origins, degrees.tolist(), levels.tolist(), strict=True)
    ]
    return {
        "images": (gains[:, None, None] * images).astype(np.float32),
        "azimuths": azimuths,
        "description": np.array(json.dumps({"sources": described, "room": room})),
    }


def _in_simulated_room(sources, condition, positions, draws: _Draws) -> tuple[np.ndarray, np.ndarray, dict]:
    """Images, azimuths and the room's description."""
    room = draws(_ROOM)
    size = room.uniform(condition.smallest_room, condition.largest_room).tolist()
    reverberation_time = float(room.uniform(*condition.reverberation_time))
    distances = room.uniform(*condition.source_distance, size=len(sources))
    azimuths = draw_azimuths(draws(_DIRECTIONS), len(sources), np.radians(condition.smallest_angle))
    scene = simulate_room(
        sources,
        condition.sample_rate,
        positions,
        azimuths,
        room_size=tuple(size),
        reverberation_time=reverberation_time,
        source_distance=distances,
    )
    described = {"size": size, "reverberation_time": reverberation_time, "source_distances": distances.tolist()}
    return scene.images, azimuths, described


def _in_measured_room(sources, condition, responses, draws: _Draws) -> tuple[np.ndarray, np.ndarray, dict]:
    """Images, azimuths and the room's description."""
    rooms = list(responses.files)
    room = one_of("room", condition.room, rooms) if condition.room is not None else str(draws(_ROOM).choice(rooms))
    degrees = choose_azimuths(draws(_DIRECTIONS), list(responses.files[room]), len(sources), condition.smallest_angle)
    images = [
        convolve(source[None], responses.response(room, azimuth, condition.sample_rate)[None])[0]
        for source, azimuth in zip(sources, degrees, strict=True)
    ]
    azimuths = np.angle(np.exp(1j * np.radians(degrees)))
    return np.stack(images), azimuths, {"responses": responses.folder.resolve().name, "name": room}


def _draw_noise(clean, condition, positions, draws: _Draws, corpus, speakers: frozenset[str]) -> np.ndarray:
    """The condition's noise, of the images' dtype; its levels are those below the images' sum."""
    power = np.mean(np.square(clean, dtype=np.float64))
    noise = np.zeros(clean.shape)
    if condition.sensor_noise is not None:
        noise += sensor_noise(clean.shape, power / 10 ** (condition.sensor_noise / 10), draws(_SENSOR_NOISE))
    if condition.diffuse_noise is not None:
        share = power / 10 ** (condition.diffuse_noise / 10)
        noise += diffuse_noise(positions, clean.shape[1], condition.sample_rate, share, draws(_DIFFUSE_NOISE))
    if condition.babble is not None:
        share = power / 10 ** (condition.babble / 10)
        draw = draws(_BABBLE)
        voices = draw_babble(corpus, len(positions), condition.sample_rate, clean.shape[1], draw, without=speakers)
        noise += diffuse_babble(positions, voices, condition.sample_rate, share)
    return noise.astype(clean.dtype)
