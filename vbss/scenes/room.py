"""Scenes in a simulated shoebox room, with every source's own sound at every microphone known."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy import signal

from vbss.audio import read_microphone_positions
from vbss.errors import InputError
from vbss.scenes.speech_like import HIGH_VOICE, LOW_VOICE, speech_like

# The array stands off the room's middle, where reflections from opposite walls would coincide.
ARRAY_PLACE = np.array([0.46, 0.52, 0.5])


@dataclass(frozen=True)
class Scene:
    """A recording of which the truth is known.

    **Attributes:**

    - `mixture`: what the microphones record, `(microphones, samples)`.
    - `images`: each source alone at each microphone, reverberation included,
      `(sources, microphones, samples)`.
    - `noise`: what else the microphones hear, `(microphones, samples)`; the mixture is exactly the images' sum
      plus the noise.
    - `sample_rate`: Hz.
    - `microphone_positions`: m, relative to the array's centre, `(microphones, 3)`.
    - `azimuths`: directions of the sources seen from the array's centre, rad, counter-clockwise from +x,
      `(sources,)`.
    - `description`: how the scene was made, which JSON can hold; empty where nothing is told.
    """

    mixture: Float[np.ndarray, "microphones samples"]
    images: Float[np.ndarray, "sources microphones samples"]
    noise: Float[np.ndarray, "microphones samples"]
    sample_rate: int
    microphone_positions: Float[np.ndarray, "microphones 3"]
    azimuths: Float[np.ndarray, " sources"]
    description: dict[str, Any] = field(default_factory=dict)


def simulate_room(
    sources: Shaped[np.ndarray, "..."],
    sample_rate: int,
    microphone_positions: Shaped[np.ndarray, "..."],
    azimuths: Shaped[np.ndarray, "..."],
    *,
    room_size: tuple[float, float, float] = (7.0, 6.0, 3.0),
    reverberation_time: float = 0.3,
    source_distance: float | Float[np.ndarray, " sources"] = 1.5,
    signal_to_noise_ratio: float | None = None,
    seed: int = 0,
) -> Scene:
    """Sources around a microphone array in a shoebox room, by the image method.

    The array's centre is near the room's middle, at half its height, and the sources are as high. Walls
    absorb alike at all frequencies. The direct sound arrives after distance / (343 m/s), to a fraction of a
    sample. The same arguments give the same scene.

    **Arguments:**

    - `sources`: dry sounds, `(sources, samples)`.
    - `sample_rate`: Hz.
    - `microphone_positions`: m, relative to the array's centre, `(microphones, 3)`.
    - `azimuths`: directions of the sources, rad, counter-clockwise from +x, `(sources,)`.
    - `room_size`: length along x, width along y and height, m.
    - `reverberation_time`: s after which sound has decayed by 60 dB (Sabine's formula); 0 for no walls.
    - `source_distance`: from the array's centre, m; one for all sources or one for each.
    - `signal_to_noise_ratio`: dB, of all images together to white sensor noise that is independent between
      microphones; `None` for no noise.
    - `seed`: of the noise.

    **Returns:** a `Scene` as long as the sources: what reverberates on after their last sample is cut.

    **Raises:** `InputError` if shapes do not fit, values are not finite, a source or microphone is outside
    the room, or the room is too large for the reverberation time.
    """
    sources = _finite_array("sources", sources, ndim=2)
    positions = _finite_array("microphone_positions", microphone_positions, ndim=2)
    azimuths = _finite_array("azimuths", azimuths, ndim=1)
    size = np.asarray(room_size, dtype=float)
    if positions.shape[1] != 3:
        raise InputError(f"microphone_positions must have shape (microphones, 3), got {positions.shape}.")
    if len(azimuths) != len(sources):
        raise InputError(f"azimuths must have one entry per source: {len(azimuths)} for {len(sources)} sources.")
    if size.shape != (3,) or not np.all((size > 0) & (size < np.inf)):
        raise InputError(f"room_size must be three positive lengths in m, got {room_size}.")
    distances = np.asarray(source_distance, dtype=float)
    if distances.shape not in ((), azimuths.shape):
        raise InputError(f"source_distance must be one or one per source, got shape {distances.shape}.")
    for name, value in [("source_distance", distances), ("sample_rate", np.asarray(sample_rate))]:
        if not np.all(value > 0):
            raise InputError(f"{name} must be positive, got {value}.")
    if not reverberation_time >= 0:
        raise InputError(f"reverberation_time must not be negative, got {reverberation_time}.")

    centre = ARRAY_PLACE * size
    directions = np.stack([np.cos(azimuths), np.sin(azimuths), np.zeros_like(azimuths)], axis=1)
    source_places = centre + distances.reshape(-1, 1) * directions
    microphone_places = centre + positions
    for name, places in [("source", source_places), ("microphone", microphone_places)]:
        outside = np.any((places <= 0) | (places >= size), axis=1)
        if outside.any():
            place = ", ".join(f"{x:.2f}" for x in places[outside.argmax()])
            raise InputError(f"{name} {outside.argmax()} at ({place}) m is outside the room of {room_size} m.")

    responses = _room_responses(source_places, microphone_places, size, reverberation_time, sample_rate)
    images = convolve(sources, responses)
    clean = images.sum(axis=0)
    noise = np.zeros_like(clean)
    if signal_to_noise_ratio is not None:
        power = np.mean(clean**2) / 10.0 ** (signal_to_noise_ratio / 10.0)
        noise = np.sqrt(power) * np.random.default_rng(seed).standard_normal(clean.shape)
    return Scene(clean + noise, images, noise, sample_rate, positions, azimuths)


def demo_scene(seed: int = 0, sample_rate: int = 16000, seconds: float = 5.0) -> Scene:
    """Two speech-like voices, well apart, recorded by four microphones on a circle of 8 cm in a living room.

    The reverberation time is 0.25 s and there is a little sensor noise (40 dB below the voices). `seed`
    decides what is said, where the first voice is and how far the second is from it (80 to 140 degrees).

    **Arguments:** `seed`; `sample_rate`, Hz, at least 8000; `seconds`, s, at least 1.

    **Returns:** a `Scene` of 2 sources and 4 microphones.

    **Raises:** `InputError` as `speech_like`.
    """
    generator = np.random.default_rng(seed)
    first = generator.uniform(-np.pi, np.pi)
    azimuths = first + np.array([0.0, np.radians(generator.uniform(80.0, 140.0))])
    azimuths = np.angle(np.exp(1j * azimuths))
    seeds = generator.integers(2**31, size=2)
    sources = np.stack(
        [
            speech_like(voice, seconds, sample_rate, int(words))
            for voice, words in zip([LOW_VOICE, HIGH_VOICE], seeds, strict=True)
        ]
    )
    return simulate_room(
        sources,
        sample_rate,
        read_microphone_positions("circular:4:0.08"),
        azimuths,
        reverberation_time=0.25,
        signal_to_noise_ratio=40.0,
        seed=seed,
    )


def _finite_array(name: str, value: Shaped[np.ndarray, "..."], ndim: int) -> np.ndarray:
    array = np.asarray(value, dtype=float)
    if array.ndim != ndim or array.size == 0:
        raise InputError(f"{name} must have {ndim} axes and not be empty, got shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} must be finite.")
    return array


def _room_responses(source_places, microphone_places, size, reverberation_time, sample_rate) -> np.ndarray:
    """Impulse responses, `(sources, microphones, taps)`, that start at the moment of emission."""
    import pyroomacoustics  # heavy

    absorption, max_order = 1.0, 0
    if reverberation_time > 0:
        try:
            absorption, max_order = pyroomacoustics.inverse_sabine(reverberation_time, size, c=343.0)
        except ValueError as error:
            raise InputError(
                f"reverberation_time of {reverberation_time} s is too short for a room of {size} m."
            ) from error
    room = pyroomacoustics.ShoeBox(
        size, fs=sample_rate, materials=pyroomacoustics.Material(absorption), max_order=max_order
    )
    for place in source_places:
        room.add_source(place)
    room.add_microphone_array(microphone_places.T)
    # How threads share out the reflections changes the last digits: one thread gives one result everywhere.
    num_threads = pyroomacoustics.constants.get("num_threads")
    pyroomacoustics.constants.set("num_threads", 1)
    try:
        room.compute_rir()
    finally:
        pyroomacoustics.constants.set("num_threads", num_threads)

    assert room.rir is not None
    # Its fractional-delay filters are centred, so everything comes half a filter late.
    delay = pyroomacoustics.constants.get("frac_delay_length") // 2
    taps = max(len(response) for responses in room.rir for response in responses) - delay
    padded = np.zeros((len(source_places), len(microphone_places), taps))
    for microphone, responses in enumerate(room.rir):
        for source, response in enumerate(responses):
            padded[source, microphone, : len(response) - delay] = response[delay:]
    return padded


def convolve(sources: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Every source through its responses, cut to its own length: `(sources, microphones, samples)`."""
    num_samples = sources.shape[1]
    return signal.fftconvolve(sources[:, None], responses, axes=-1)[..., :num_samples]
