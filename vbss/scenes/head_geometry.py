"""Directions as vectors, and on which side of a head a sound is heard."""

import numpy as np
from jaxtyping import Float

_HIGHEST = 1500.0  # Hz, above which the phase between the ears is ambiguous
_LONGEST = 1e-3  # s, more than sound takes around a head
_LAG_STEP = 2e-5  # s
_BEFORE, _AFTER = 1e-3, 3e-3  # s around the direct sound: later come the room's reflections
_ONSET = 0.1  # of the largest value, where the direct sound begins
_ASIDE = 0.1  # distance from the median plane, of 1, from which a direction has a side
_BATCH = 256  # directions at a time: bounds the memory


def direction_vectors(
    azimuths: Float[np.ndarray, " directions"], elevations: Float[np.ndarray, " directions"]
) -> Float[np.ndarray, "directions 3"]:
    """Unit vectors, x to the front, y to the left, z up, of angles in rad."""
    flat = np.cos(elevations)
    return np.stack([flat * np.cos(azimuths), flat * np.sin(azimuths), np.sin(elevations)], axis=-1)


def direction_degrees(vectors: Float[np.ndarray, "directions 3"]) -> Float[np.ndarray, "directions 2"]:
    """Azimuth and elevation of vectors of any length, degrees."""
    x, y, z = vectors.T
    return np.degrees(np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], axis=-1))


def wrapped(degrees: Float[np.ndarray, " directions"]) -> Float[np.ndarray, " directions"]:
    """The same angles in (-180, 180]."""
    return 180 - (180 - degrees) % 360


def interaural_delays(
    responses: Float[np.ndarray, "directions 2 taps"], sample_rate: int
) -> Float[np.ndarray, " directions"]:
    """How much earlier the direct sound below 1.5 kHz is at the left ear, s (a multiple of 20 us)."""
    lags = _LAG_STEP * np.arange(-round(_LONGEST / _LAG_STEP), round(_LONGEST / _LAG_STEP) + 1)
    delays = []
    for start in range(0, len(responses), _BATCH):
        direct = _direct_sound(responses[start : start + _BATCH], sample_rate)
        length = direct.shape[-1] + round(_LONGEST * sample_rate)
        frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
        left, right = np.moveaxis(np.fft.rfft(direct, length)[..., frequencies <= _HIGHEST], 1, 0)
        turns = np.exp(-2j * np.pi * frequencies[frequencies <= _HIGHEST, None] * lags)
        delays.append(lags[((left * right.conj()) @ turns).real.argmax(-1)])
    return np.concatenate(delays)


def is_heard_on_other_side(
    responses: Float[np.ndarray, "directions 2 taps"],
    vectors: Float[np.ndarray, "directions 3"],
    sample_rate: int,
) -> bool:
    """Whether the ears hear directions on the left from the right, and the other way round.

    Delays and levels vote together, each direction by its distance from the median plane.
    """
    lateral = vectors[:, 1]
    is_aside = np.abs(lateral) > _ASIDE
    if not is_aside.any():
        return False
    energies = np.square(_direct_sound(responses[is_aside], sample_rate)).sum(-1)
    levels = np.log10(energies[:, 0] / energies[:, 1])
    delays = interaural_delays(responses[is_aside], sample_rate)
    return _correlation(delays, lateral[is_aside]) + _correlation(levels, lateral[is_aside]) < 0


def _direct_sound(responses: np.ndarray, sample_rate: int) -> np.ndarray:
    """The direct sound of both ears, `(directions, 2, samples)`, zero before and after."""
    strongest = np.abs(responses).max(1)
    onsets = (strongest >= _ONSET * strongest.max(-1, keepdims=True)).argmax(-1)
    before, after = round(_BEFORE * sample_rate), round(_AFTER * sample_rate)
    padded = np.pad(responses, ((0, 0), (0, 0), (before, after)))
    window = onsets[:, None, None] + np.arange(before + after)
    return np.take_along_axis(padded, np.broadcast_to(window, (len(window), 2, before + after)), axis=-1)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """From -1 to 1, without taking means away: what is on the left stays on the left."""
    norm = np.sqrt(np.sum(first**2) * np.sum(second**2))
    return float(np.sum(first * second) / norm) if norm > 0 else 0.0
