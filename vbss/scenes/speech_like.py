"""Speech-like sound without any data: syllables, fricatives and pauses of a source-filter voice."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import signal

from vbss.errors import InputError

# First three formants (Hz) of a grown-up male voice: i, e, a, o, u and a neutral vowel.
VOWELS = np.array(
    [
        [280.0, 2250.0, 2890.0],
        [500.0, 1850.0, 2480.0],
        [730.0, 1090.0, 2440.0],
        [500.0, 880.0, 2410.0],
        [310.0, 870.0, 2250.0],
        [500.0, 1500.0, 2500.0],
    ]
)
HIGH_FORMANTS = np.array([3400.0, 4300.0])
BANDWIDTHS = np.array([70.0, 100.0, 140.0, 220.0, 300.0])  # Hz, of the five resonators
CONTROL_PERIOD = 0.004  # s between two settings of the resonators


@dataclass(frozen=True)
class Speaker:
    """What tells one synthetic voice from another.

    **Attributes:**

    - `fundamental_frequency`: median pitch, Hz.
    - `formant_scale`: factor on all formant frequencies; 1 is a long (male) vocal tract, 1.2 a short one.
    - `syllable_rate`: syllables per second, pauses not counted.
    """

    fundamental_frequency: float
    formant_scale: float
    syllable_rate: float

    def __post_init__(self):
        for name in ("fundamental_frequency", "formant_scale", "syllable_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}.")


LOW_VOICE = Speaker(fundamental_frequency=110.0, formant_scale=1.0, syllable_rate=4.2)
HIGH_VOICE = Speaker(fundamental_frequency=205.0, formant_scale=1.18, syllable_rate=5.3)


def speech_like(
    speaker: Speaker, seconds: float, sample_rate: int = 16000, seed: int = 0
) -> Float[np.ndarray, " samples"]:
    """Speech-like sound: about as sparse in time and frequency as speech, but without words.

    Phrases of a few syllables alternate with pauses. A syllable is a vowel, often after a fricative or a stop
    burst. The same arguments give the same sound.

    **Arguments:**

    - `speaker`: the voice.
    - `seconds`: duration, s.
    - `sample_rate`: Hz, at least 8000.
    - `seed`: what is said.

    **Returns:** float64 samples of shape `(samples,)`, with a root mean square of 0.05.

    **Raises:** `InputError` if the duration is below 1 s or the sample rate below 8000 Hz.
    """
    if not seconds >= 1:
        raise InputError(f"seconds must be at least 1, got {seconds}.")
    if sample_rate < 8000:
        raise InputError(f"sample_rate must be at least 8000 Hz, got {sample_rate}.")
    generator = np.random.default_rng(seed)
    num_samples = round(seconds * sample_rate)
    tracks = _plan(speaker, num_samples / sample_rate, generator)
    time = np.arange(num_samples) / sample_rate

    pitch = np.interp(time, tracks.times, tracks.pitch)
    voicing = np.interp(time, tracks.times, tracks.voicing)
    breath = generator.standard_normal(num_samples)
    excitation = voicing * (_glottal_source(pitch, sample_rate) + 0.06 * breath)
    sound = _resonate(excitation, tracks, sample_rate)
    sound /= np.sqrt(np.mean(sound**2))

    for centre, level, envelope in tracks.frication:
        sound += level * envelope(time) * _noise_band(centre, num_samples, sample_rate, generator)
    return 0.05 * sound / np.sqrt(np.mean(sound**2))


@dataclass
class _Tracks:
    """Control signals every `CONTROL_PERIOD`, and noise bursts as (centre Hz, level, envelope of time)."""

    times: np.ndarray  # (controls,) s
    pitch: np.ndarray  # (controls,) Hz
    voicing: np.ndarray  # (controls,) amplitude
    formants: np.ndarray  # (controls, 5) Hz
    frication: list


def _plan(speaker: Speaker, seconds: float, generator: np.random.Generator) -> _Tracks:
    """Draw what the voice does, syllable by syllable."""
    times = np.arange(0.0, seconds + CONTROL_PERIOD, CONTROL_PERIOD)
    pitch = np.full(len(times), speaker.fundamental_frequency)
    voicing = np.zeros(len(times))
    formants = np.tile(np.concatenate([VOWELS[-1], HIGH_FORMANTS]), (len(times), 1))
    frication = []

    now = generator.uniform(0.05, 0.3)
    while now < seconds:
        num_syllables = generator.integers(3, 8)
        for index in range(num_syllables):
            duration = generator.uniform(0.75, 1.3) / speaker.syllable_rate
            onset = generator.choice(["none", "fricative", "stop"], p=[0.35, 0.4, 0.25])
            closure = 0.0 if onset == "none" else generator.uniform(0.06, 0.11)
            if onset == "fricative":
                centre = generator.uniform(2800.0, 6500.0)
                frication.append((centre, generator.uniform(0.2, 0.7), _bump(now, closure, 0.02)))
            elif onset == "stop":
                centre = generator.uniform(1500.0, 4500.0)
                burst = _bump(now + closure - 0.015, 0.015, 0.003)
                frication.append((centre, generator.uniform(0.4, 0.9), burst))
            start, stop = now + closure, now + max(duration, closure + 0.08)
            loudness = generator.uniform(0.4, 1.0) * (1.0 - 0.4 * index / num_syllables)
            voicing = np.maximum(voicing, loudness * _bump(start, stop - start, 0.025)(times))

            # Pitch falls along the phrase and moves within the syllable; formants go from vowel to vowel.
            level = generator.normal(1.5 - 3.5 * index / num_syllables, 1.5)
            glide = generator.normal(0.0, 2.5)
            first, last = VOWELS[generator.integers(len(VOWELS), size=2)]
            last = first + generator.uniform(0.2, 0.7) * (last - first)
            inside = (times >= now) & (times < stop)
            position = np.clip((times[inside] - start) / (stop - start), 0.0, 1.0)
            semitones = level + glide * (position - 0.5)
            pitch[inside] = speaker.fundamental_frequency * 2.0 ** (semitones / 12.0)
            formants[inside, :3] = first + position[:, None] * (last - first)
            now = stop
        now += generator.uniform(0.15, 0.4)

    # Cords and tongue are slow: smooth the steps between syllables, and let the period jitter a little.
    pitch = _smooth(pitch, 0.03) * (1.0 + 0.01 * generator.standard_normal(len(times)))
    formants = speaker.formant_scale * _smooth(formants, 0.025)
    return _Tracks(times, pitch, voicing, formants, frication)


def _bump(start: float, duration: float, rise: float):
    """An envelope of `duration` seconds from `start`, raised-cosine edges of `rise` seconds included."""
    rise = min(rise, duration / 2)

    def envelope(time):
        nearest_edge = np.clip(np.minimum(time - start, start + duration - time) / rise, 0.0, 1.0)
        return 0.5 - 0.5 * np.cos(np.pi * nearest_edge)

    return envelope


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """Moving average along the first axis, ends held."""
    width = 2 * round(seconds / CONTROL_PERIOD / 2) + 1
    padded = np.pad(track, [(width // 2, width // 2)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(axis=-1)


def _glottal_source(pitch: np.ndarray, sample_rate: int) -> np.ndarray:
    """Band-limited pulse train whose harmonics fall by 5 dB per octave: glottal flow, radiated."""
    phase = 2.0 * np.pi * np.cumsum(pitch) / sample_rate
    pulses = np.zeros(len(pitch))
    for harmonic in range(1, int(0.5 * sample_rate / pitch.min()) + 1):
        # Fade a harmonic out before half the sample rate, so that none folds back.
        gain = np.clip((0.47 * sample_rate - harmonic * pitch) / (0.03 * sample_rate), 0.0, 1.0)
        pulses += gain / harmonic**0.8 * np.sin(harmonic * phase)
    return pulses


def _resonate(excitation: np.ndarray, tracks: _Tracks, sample_rate: int) -> np.ndarray:
    """Cascade of five moving resonators of unit gain at 0 Hz, their state carried from setting to setting."""
    bandwidths = BANDWIDTHS[None] * np.ones(len(tracks.times))[:, None]
    # Formants above half the sample rate are left out by making them as good as flat.
    radius = np.exp(-np.pi * bandwidths / sample_rate)
    radius = np.where(tracks.formants < 0.48 * sample_rate, radius, 0.0)
    cosine = np.cos(2.0 * np.pi * tracks.formants / sample_rate)
    sections = np.zeros((*radius.shape, 6))
    sections[..., 3] = 1.0
    sections[..., 4] = -2.0 * radius * cosine
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(axis=-1)

    sound = np.empty_like(excitation)
    state = np.zeros((radius.shape[1], 2))
    edges = np.round(tracks.times * sample_rate).astype(int)
    for section, start, stop in zip(sections, edges, [*edges[1:], len(excitation)], strict=True):
        if start < len(excitation):
            sound[start:stop], state = signal.sosfilt(section, excitation[start:stop], zi=state)
    return sound


def _noise_band(centre: float, num_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """White noise through a broad resonance at `centre` Hz, of root mean square about 1."""
    centre = min(centre, 0.42 * sample_rate)
    radius = np.exp(-np.pi * 1200.0 / sample_rate)
    denominator = [1.0, -2.0 * radius * np.cos(2.0 * np.pi * centre / sample_rate), radius**2]
    white = generator.standard_normal(num_samples)
    noise = np.asarray(signal.lfilter([1.0, 0.0, -1.0], denominator, white))
    return noise / np.sqrt(np.mean(noise**2))
