import json
from dataclasses import replace

import numpy as np
import pytest
from head_sets import grid, rigid_responses

from vbss.errors import InputError
from vbss.scenes import BinauralCondition, HeadResponses, SpeechCorpus, random_binaural_scene

CONDITION = BinauralCondition(sample_rate=8000, seconds=1.0)


@pytest.fixture(scope="module")
def corpus(speech_folder):
    return SpeechCorpus.read(speech_folder)


@pytest.fixture(scope="module")
def heads():
    azimuths, elevations = grid(step=10)
    responses = rigid_responses(azimuths, elevations, 16000)
    return HeadResponses(responses, np.radians(azimuths), np.radians(elevations), 16000, "rigid")


@pytest.fixture(scope="module")
def scene(corpus, heads):
    return random_binaural_scene(corpus, heads, CONDITION, seed=1, index=2)


def level(signals):
    return 10 * np.log10(np.mean(np.square(signals, dtype=float)))


def great_circle(heads, scene):
    angles = replace(heads.take([0, 1]), azimuths=scene.azimuths[:2], elevations=scene.elevations[:2]).vectors
    return np.degrees(np.arccos(angles[0] @ angles[1]))


def assert_same(scene, other):
    for name in ("mixture", "images", "noise", "azimuths", "elevations"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(other, name))
    assert scene.description == other.description


def test_the_scene_is_what_the_condition_says(scene):
    assert scene.images.shape == (2, 2, 8000) and scene.sample_rate == 8000
    for signals in (scene.mixture, scene.images, scene.noise):
        assert signals.dtype == np.float32
    np.testing.assert_array_equal(scene.mixture, scene.images.sum(0) + scene.noise)
    assert level(scene.images[1]) == pytest.approx(level(scene.images[0]), abs=1e-3)
    for ear in scene.noise:
        assert level(ear) == pytest.approx(level(scene.images[0]) - 40, abs=0.3)
    assert abs(np.corrcoef(scene.noise)[0, 1]) < 0.05


def test_a_source_on_the_left_is_earlier_and_louder_there(corpus, heads):
    left = heads.within(azimuths=(np.radians(60), np.radians(120)), elevations=(0.0, 0.0))
    scene = random_binaural_scene(corpus, left, replace(CONDITION, num_sources=1, sensor_noise=None))
    assert scene.azimuths.shape == (1,) and scene.azimuths[0] > 0
    image = scene.images[0].astype(float)
    assert level(image[0]) > level(image[1]) + 8
    lags = np.correlate(image[1], image[0, 10:-10])  # the right ear against the left, from 10 samples earlier on
    assert 1 <= np.argmax(lags) - 10 <= 5


def test_the_description_tells_the_truth(scene):
    described = json.loads(json.dumps(scene.description))
    assert (described["seed"], described["index"], described["heads"]) == (1, 2, "rigid")
    assert described["sensor_noise_db"] == 40.0
    sources = described["sources"]
    assert len({source["speaker"] for source in sources}) == 2
    np.testing.assert_allclose([source["azimuth_degrees"] for source in sources], np.degrees(scene.azimuths), atol=1e-5)
    heights = [source["elevation_degrees"] for source in sources]
    np.testing.assert_allclose(heights, np.degrees(scene.elevations), atol=1e-5)


def test_the_same_arguments_give_the_same_scene_and_others_another(corpus, heads, scene):
    assert_same(random_binaural_scene(corpus, heads, CONDITION, seed=1, index=2), scene)
    for other in ({"seed": 1, "index": 3}, {"seed": 2, "index": 2}):
        assert not np.array_equal(random_binaural_scene(corpus, heads, CONDITION, **other).images, scene.images)


def test_images_do_not_depend_on_the_noise(corpus, heads, scene):
    for noise in (None, 20.0):
        other = random_binaural_scene(corpus, heads, replace(CONDITION, sensor_noise=noise), seed=1, index=2)
        np.testing.assert_array_equal(other.images, scene.images)
        expected = 0 if noise is None else 10 * scene.noise
        np.testing.assert_allclose(other.noise, expected, rtol=1e-5)


def test_directions_are_apart(corpus, heads):
    condition = replace(CONDITION, smallest_angle=100.0)
    for index in range(10):
        scene = random_binaural_scene(corpus, heads, condition, index=index)
        assert great_circle(heads, scene) >= 100 - 1e-6
    # Azimuths that differ much, high above, are near to each other.
    high = heads.take(heads.elevations > 0.5)
    steep = replace(high, elevations=np.full(len(high), np.radians(80)))
    with pytest.raises(InputError, match="smallest_angle of 30"):
        random_binaural_scene(corpus, steep, replace(CONDITION, smallest_angle=30.0))


def test_levels_are_those_of_the_later_sources(corpus, heads):
    condition = replace(CONDITION, num_sources=3, level=(-6.0, -3.0), smallest_angle=30.0)
    scene = random_binaural_scene(corpus, heads, condition)
    assert scene.images.shape[0] == 3
    levels = [level(image) - level(scene.images[0]) for image in scene.images]
    assert levels[0] == 0 and -6.01 < min(levels[1:]) and max(levels[1:]) < -2.99
    described = [source["level_db"] for source in scene.description["sources"]]
    np.testing.assert_allclose(levels, described, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sources": 4}, "num_sources"),
        ({"sample_rate": 4000}, "sample_rate"),
        ({"seconds": 0.5}, "seconds"),
        ({"smallest_angle": 200.0}, "smallest_angle"),
        ({"level": (1.0, 0.0)}, "level"),
        ({"sensor_noise": 300.0}, "sensor_noise"),
    ],
)
def test_impossible_conditions_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(CONDITION, **change)
