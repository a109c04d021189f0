"""Impulse responses from directions around a head to its two ears, measured in a laboratory or in a room."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
import soxr
from jaxtyping import Bool, Float, Int
from scipy import signal

from vbss.audio import InterauralCues
from vbss.audio.files import check_sample_rate
from vbss.errors import InputError, one_of, positive, whole_number
from vbss.scenes.head_files import read_head_file
from vbss.scenes.head_geometry import direction_vectors, interaural_delays, is_heard_on_other_side, wrapped

_PARTS = ("test", "dev", "calibration")
_FIFTHS = 5  # of the directions; the first is for tests, the second for development
_BATCH = 32  # directions whose noise is analysed at a time: bounds the memory
_RINGING = 64  # samples that a resampler's filter takes to rise and to fall
_TOLERANCE = 1e-6  # rad, by which a direction may be beyond a limit


@dataclass(frozen=True)
class HeadResponses:
    """Impulse responses to the ears (left, right) from some directions.

    Attributes:
        responses: float64.
        azimuths: rad in (-pi, pi], 0 in front, counter-clockwise: positive on the left.
        elevations: rad, positive above.
        sample_rate: Hz.
        name: of the set.
        numbers: of each direction, from 0, when those of the whole set are sorted by azimuth and elevation in degrees,
            as the set's file has them; by default of `azimuths` and `elevations`.
        is_mirrored: whether the file has its azimuths clockwise, against what its ears hear, so that they were negated.

    Raises:
        InputError: if shapes do not belong together, a value is not finite, or an ear hears nothing from a direction.
    """

    responses: Float[np.ndarray, "directions 2 taps"]
    azimuths: Float[np.ndarray, " directions"]
    elevations: Float[np.ndarray, " directions"]
    sample_rate: int
    name: str = ""
    numbers: Int[np.ndarray, " directions"] = field(default_factory=lambda: np.empty(0, int))
    is_mirrored: bool = False

    def __post_init__(self):
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))
        if self.responses.ndim != 3 or self.responses.shape[1] != 2 or self.responses.size == 0:
            raise InputError(f"responses must have shape (directions, 2, taps), got {self.responses.shape}.")
        if self.numbers.size == 0:
            object.__setattr__(self, "numbers", _ranks(self.azimuths, self.elevations))
        for name in ("azimuths", "elevations", "numbers"):
            if getattr(self, name).shape != self.responses.shape[:1]:
                raise InputError(
                    f"{name} must have one entry for each of {len(self.responses)} directions, got shape "
                    f"{getattr(self, name).shape}."
                )
        for name in ("responses", "azimuths", "elevations"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{name} must be finite.")
        is_silent = ~self.responses.any(-1).all(-1)
        if is_silent.any():
            raise InputError(f"responses are silent at an ear from direction {is_silent.argmax()} (counted from 0).")
        azimuths = np.radians(wrapped(np.degrees(self.azimuths)))
        object.__setattr__(self, "azimuths", np.where(np.abs(self.azimuths) <= np.pi, self.azimuths, azimuths))

    @classmethod
    def read(cls, path: str | Path) -> "HeadResponses":
        """The responses in a file or a folder.

        - `.sofa`: free-field responses or those of a room (SimpleFreeFieldHRIR and what has the same fields). Needs
          sofar (`pip install "vbss[sofa]"`).
        - `.mat`: a head of the CIPIC database, hrir_l and hrir_r.
        - `.npz`: arrays azimuth_deg, elevation_deg (directions,), ir (directions, 2, taps) and fs (Hz).
        - a folder with `heads.csv` or `responses.csv`, or any `.csv`: a table with the columns file (a sound file of
          the channels left and right, relative to the table), azimuth_degrees (counter-clockwise) and, optionally,
          elevation_degrees (0 if there is none).

        Files contradict themselves. What the ears hear decides: directions on the left must arrive earlier and louder
        at the left ear. Where they do not, the channels are exchanged if the file says that the first is the right
        ear, and else the azimuths are negated (`is_mirrored`).

        Raises:
            InputError: if there is no such file, it cannot be read, it lacks a field, it has not two ears, or a
                response is silent or not finite.
        """
        file = read_head_file(path)
        if not (np.isfinite(file.responses).all() and file.responses.any(-1).all() and np.isfinite(file.degrees).all()):
            raise InputError(f"{str(path)!r} has responses or angles that are silent or not finite.")
        responses, degrees = file.responses, file.degrees
        vectors = direction_vectors(*np.radians(degrees.T))
        is_contradiction = is_heard_on_other_side(responses, vectors, file.sample_rate)
        is_mirrored = is_contradiction and not file.says_right_first
        if is_contradiction and file.says_right_first:
            responses = responses[:, ::-1]
        azimuths = np.radians(wrapped(-degrees[:, 0] if is_mirrored else degrees[:, 0]))
        return cls(
            np.ascontiguousarray(responses),
            azimuths,
            np.radians(degrees[:, 1]),
            file.sample_rate,
            Path(path).stem,
            _ranks(*file.own_degrees.T),
            is_mirrored,
        )

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def vectors(self) -> Float[np.ndarray, "directions 3"]:
        """Unit vectors of the directions: x to the front, y to the left, z up."""
        return direction_vectors(self.azimuths, self.elevations)

    @property
    def interaural_delays(self) -> Float[np.ndarray, " directions"]:
        """How much earlier the direct sound below 1.5 kHz is at the left ear, s (a multiple of 20 us)."""
        return interaural_delays(self.responses, self.sample_rate)

    def take(self, indices: Int[np.ndarray, " some"] | Bool[np.ndarray, " directions"] | list[int]) -> "HeadResponses":
        """Some of the directions, in the order of the indices; they keep their `numbers`.

        Raises:
            InputError: if an index is none of a direction, or nothing is left.
        """
        indices = np.asarray(indices)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        if indices.size == 0 or indices.min() < -len(self) or indices.max() >= len(self):
            raise InputError(f"indices must be of some of the {len(self)} directions of {self.name!r}, got {indices}.")
        fields = ("responses", "azimuths", "elevations", "numbers")
        return replace(self, **{name: getattr(self, name)[indices] for name in fields})

    def split(self, part: str) -> "HeadResponses":
        """The directions of one part, "test", "dev" or "calibration": their `numbers` modulo 5 are 0, 1, or more.

        Raises:
            InputError: if there is no such part, or it is empty.
        """
        one_of("part", part, _PARTS)
        return self.take(np.minimum(self.numbers % _FIFTHS, 2) == _PARTS.index(part))

    def within(
        self, azimuths: tuple[float, float] = (-np.pi, np.pi), elevations: tuple[float, float] = (-np.pi / 2, np.pi / 2)
    ) -> "HeadResponses":
        """The directions from a smallest to a largest azimuth and elevation, rad, limits included.

        Azimuths whose first is above the second go through the back.

        Raises:
            InputError: if no direction is left.
        """
        left_of_first = self.azimuths >= azimuths[0] - _TOLERANCE
        right_of_last = self.azimuths <= azimuths[1] + _TOLERANCE
        is_inside = left_of_first & right_of_last if azimuths[0] <= azimuths[1] else left_of_first | right_of_last
        is_inside &= (self.elevations >= elevations[0] - _TOLERANCE) & (self.elevations <= elevations[1] + _TOLERANCE)
        return self.take(is_inside)

    def resampled(self, sample_rate: int | np.integer) -> "HeadResponses":
        """The responses at another sample rate, Hz, as filters of the same gain, all later by 64 of the old samples."""
        sample_rate = check_sample_rate(sample_rate)
        if sample_rate == self.sample_rate:
            return self
        # The resampler rings before and after a response, whose spectrum would change without room for it.
        padded = np.pad(self.responses, ((0, 0), (0, 0), (_RINGING, _RINGING))).reshape(2 * len(self), -1)
        resampled = np.stack([soxr.resample(row, self.sample_rate, sample_rate) for row in padded])
        # A filter's gain is its sum, of which there are now more or fewer terms.
        responses = resampled.reshape(len(self), 2, -1) * (self.sample_rate / sample_rate)
        return replace(self, responses=responses, sample_rate=sample_rate)

    def white_noise(self, seconds: float = 1.0, seed: int = 0) -> Iterator[Float[np.ndarray, "2 samples"]]:
        """White noise as the ears hear it from each direction in turn, float32, stationary from the first sample.

        Each direction's noise is its own and depends on `seed` and its number alone: the same in any part of the set.

        Raises:
            InputError: if `seconds` is not positive or less than a sample, or `seed` not a whole number.
        """
        num_samples = round(positive("seconds", seconds) * self.sample_rate)
        seed = whole_number("seed", seed, 0)
        if num_samples < 1:
            raise InputError(f"seconds ({seconds}) is shorter than one sample at {self.sample_rate} Hz.")
        for response, number in zip(self.responses, self.numbers, strict=True):
            generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(number),)))
            noise = generator.standard_normal((1, num_samples + response.shape[-1] - 1))
            yield signal.fftconvolve(noise, response, mode="valid", axes=-1).astype(np.float32)

    def calibration_cues(
        self, cues: InterauralCues, seconds: float = 1.0, seed: int = 0
    ) -> Float[np.ndarray, "directions channels f"]:
        """What a sound from each direction sounds like: the cues' mean over time of white noise from there.

        Args:
            cues: which cues, at which sample rate; the responses are resampled to it.
            seconds: length of the noise, at least one window.
            seed: of the noise.

        Raises:
            InputError: if the noise is shorter than a window.
        """
        temporal_mean = jax.jit(cues.temporal_mean)
        noises = self.resampled(cues.sample_rate).white_noise(seconds, seed)
        means = []
        for start in range(0, len(self), _BATCH):
            batch = np.stack([next(noises) for _ in range(min(_BATCH, len(self) - start))])
            means.append(np.asarray(temporal_mean(batch)))
        return np.concatenate(means)


def _ranks(azimuths: np.ndarray, elevations: np.ndarray) -> np.ndarray:
    """Numbers from 0 by azimuth, and by elevation where azimuths are the same."""
    return np.argsort(np.lexsort((elevations, azimuths)))
