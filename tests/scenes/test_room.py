import numpy as np
import pytest

from vbss.errors import InputError
from vbss.scenes import demo_scene, simulate_room

SAMPLE_RATE = 16000
PAIR = np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
CLICK = np.zeros((1, 2000))
CLICK[0, 0] = 1.0


def delays(images, up_to=2000.0):
    """Fractional delay (samples) of the first source at each microphone, by the phase below `up_to` Hz."""
    spectra = np.fft.rfft(images[0], axis=-1)
    frequencies = np.fft.rfftfreq(images.shape[-1])
    used = (frequencies > 0.02) & (frequencies < up_to / SAMPLE_RATE)
    phases = np.unwrap(np.angle(spectra[:, used]), axis=-1)
    slopes = np.polyfit(frequencies[used], phases.T, 1)[0]
    return -slopes / (2 * np.pi)


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, -150.0])
def test_direct_sound_arrives_after_distance_over_speed(degrees):
    azimuth = np.radians(degrees)
    positions = np.array([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, -0.1, 0.05]])
    scene = simulate_room(CLICK, SAMPLE_RATE, positions, np.array([azimuth]), reverberation_time=0.0)
    place = 1.5 * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    expected = np.linalg.norm(place - positions, axis=1) / 343.0 * SAMPLE_RATE
    np.testing.assert_allclose(delays(scene.images), expected, atol=0.05)


def test_a_source_at_azimuth_zero_is_nearer_to_the_microphone_on_the_positive_x_axis():
    scene = simulate_room(CLICK, SAMPLE_RATE, PAIR, np.array([0.0]), reverberation_time=0.0)
    first, second = delays(scene.images)
    assert first < second - 5


def test_every_source_may_have_a_distance_of_its_own():
    clicks = np.concatenate([CLICK, CLICK])
    azimuths, distances = np.array([0.0, 2.0]), np.array([1.0, 2.0])
    scene = simulate_room(clicks, SAMPLE_RATE, PAIR, azimuths, source_distance=distances, reverberation_time=0.0)
    for index in range(2):
        alone = simulate_room(
            CLICK,
            SAMPLE_RATE,
            PAIR,
            azimuths[index : index + 1],
            source_distance=distances[index],
            reverberation_time=0.0,
        )
        np.testing.assert_allclose(scene.images[index], alone.images[0], atol=1e-12)


@pytest.mark.parametrize("reverberation_time", [0.2, 0.4])
def test_energy_decays_within_the_reverberation_time(reverberation_time):
    click = np.zeros((1, SAMPLE_RATE))
    click[0, 0] = 1.0
    scene = simulate_room(click, SAMPLE_RATE, PAIR, np.array([0.3]), reverberation_time=reverberation_time)
    remaining = np.cumsum(scene.images[0, 0, ::-1] ** 2)[::-1]
    level = 10 * np.log10(remaining[remaining > 0] / remaining[0])
    fall = np.searchsorted(-level, [5.0, 25.0]) / SAMPLE_RATE
    assert 3 * (fall[1] - fall[0]) == pytest.approx(reverberation_time, rel=0.25)


def test_images_sum_to_the_mixture():
    sources = np.random.default_rng(0).standard_normal((2, 4000))
    scene = simulate_room(sources, SAMPLE_RATE, PAIR, np.array([0.0, 2.0]))
    assert scene.images.shape == (2, 2, 4000)
    np.testing.assert_array_equal(scene.mixture, scene.images.sum(axis=0))
    assert not scene.noise.any()
    alone = simulate_room(sources[1:], SAMPLE_RATE, PAIR, np.array([2.0]))
    np.testing.assert_allclose(scene.images[1], alone.mixture, atol=1e-12)


def test_sensor_noise_has_the_asked_level_and_differs_between_microphones():
    sources = np.random.default_rng(0).standard_normal((1, 16000))
    scene = simulate_room(sources, SAMPLE_RATE, PAIR, np.array([0.0]), signal_to_noise_ratio=10.0)
    np.testing.assert_array_equal(scene.mixture, scene.images.sum(axis=0) + scene.noise)
    ratio = 10 * np.log10(np.mean(scene.images.sum(axis=0) ** 2) / np.mean(scene.noise**2))
    assert ratio == pytest.approx(10.0, abs=0.2)
    assert abs(np.corrcoef(scene.noise)[0, 1]) < 0.05
    other = simulate_room(sources, SAMPLE_RATE, PAIR, np.array([0.0]), signal_to_noise_ratio=10.0, seed=1)
    assert np.any(other.mixture != scene.mixture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": np.zeros(100)}, "sources must have 2 axes"),
        ({"sources": np.full((1, 100), np.nan)}, "sources must be finite"),
        ({"microphone_positions": np.zeros((2, 2))}, r"\(microphones, 3\)"),
        ({"azimuths": np.zeros(2)}, "2 for 1 sources"),
        ({"room_size": (7.0, -6.0, 3.0)}, "room_size"),
        ({"source_distance": 0.0}, "source_distance"),
        ({"source_distance": np.array([1.0, 1.0])}, "one per source"),
        ({"source_distance": 5.0}, "source 0 .* outside the room"),
        ({"microphone_positions": np.array([[0.0, 0.0, 2.0]])}, "microphone 0 .* outside the room"),
        ({"reverberation_time": -0.1}, "reverberation_time"),
        ({"reverberation_time": 0.01}, "too short"),
    ],
)
def test_impossible_rooms_are_refused(change, message):
    arguments = {
        "sources": CLICK,
        "sample_rate": SAMPLE_RATE,
        "microphone_positions": PAIR,
        "azimuths": np.zeros(1),
    }
    with pytest.raises(InputError, match=message):
        simulate_room(**(arguments | change))


def test_demo_scene():
    scene = demo_scene(seconds=1.0)
    assert scene.mixture.shape == (4, 16000)
    assert scene.images.shape == (2, 4, 16000)
    np.testing.assert_allclose(np.linalg.norm(scene.microphone_positions, axis=1), 0.04)
    again, other = demo_scene(seconds=1.0), demo_scene(seed=1, seconds=1.0)
    np.testing.assert_array_equal(again.mixture, scene.mixture)
    assert np.any(other.mixture != scene.mixture)


def test_demo_voices_are_well_apart_and_about_as_loud():
    for seed in range(5):
        scene = demo_scene(seed=seed, seconds=1.0)
        apart = np.abs(np.angle(np.exp(1j * np.diff(scene.azimuths))))
        assert 79 < np.degrees(apart[0]) < 141
        powers = 10 * np.log10(np.mean(scene.images[:, 0] ** 2, axis=1))
        assert abs(powers[0] - powers[1]) < 3
