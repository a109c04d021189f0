import json
from dataclasses import replace

import numpy as np
import pytest

from vbss.audio import write_recording
from vbss.errors import InputError
from vbss.scenes import Condition, SpeechCorpus, random_scene

CONDITION = Condition(seconds=1.0)


@pytest.fixture(scope="module")
def corpus(speech_folder):
    return SpeechCorpus.read(speech_folder)


@pytest.fixture(scope="module")
def scene(corpus):
    return random_scene(corpus, CONDITION, index=3)


@pytest.fixture(scope="module")
def responses_folder(tmp_path_factory):
    """Two rooms, in which one microphone hears the other's sound later by as many samples as the room's number."""
    folder = tmp_path_factory.mktemp("responses")
    lines = ["file,azimuth_degrees,room"]
    for room in (1, 2):
        for azimuth in (0, 15, 120, 240):
            responses = np.zeros((2, 50))
            responses[0, 0], responses[1, room] = 0.5, 1.0
            write_recording(folder / f"{room}_{azimuth}.wav", responses, 8000)
            lines.append(f"{room}_{azimuth}.wav,{azimuth},room {room}")
    (folder / "responses.csv").write_text("\n".join(lines))
    (folder / "microphones.txt").write_text("0.1 0 0\n-0.1 0 0\n")
    return folder


def level(signals):
    return 10 * np.log10(np.mean(np.square(signals, dtype=float)))


def assert_same(scene, other):
    for name in ("mixture", "images", "noise", "microphone_positions", "azimuths"):
        first, second = getattr(scene, name), getattr(other, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    assert scene.description == other.description


def test_the_scene_is_what_the_condition_says(scene):
    assert scene.images.shape == (2, 4, 8000) and scene.images.dtype == np.float32
    assert scene.sample_rate == 8000
    np.testing.assert_allclose(np.linalg.norm(scene.microphone_positions, axis=1), 0.04)
    np.testing.assert_array_equal(scene.mixture, scene.images.sum(axis=0))
    assert not scene.noise.any()


def test_the_description_tells_the_truth(scene):
    description = json.loads(json.dumps(scene.description))
    assert description == scene.description
    assert (description["seed"], description["index"], description["sample_rate"], description["seconds"]) == (
        0,
        3,
        8000,
        1,
    )
    np.testing.assert_allclose(description["microphone_positions"], scene.microphone_positions, atol=1e-9)
    first, second = description["sources"]
    assert first["speaker"] != second["speaker"]
    assert first["file"].startswith(first["speaker"] + "/")
    for source, azimuth in zip(description["sources"], scene.azimuths, strict=True):
        assert source["azimuth_degrees"] == pytest.approx(np.degrees(azimuth) % 360, abs=1e-5)
    assert first["level_db"] == 0.0
    assert level(scene.images[1, 0]) - level(scene.images[0, 0]) == pytest.approx(second["level_db"], abs=1e-4)
    room = description["room"]
    assert np.all(np.array(room["size"]) >= [5, 5, 3]) and np.all(np.array(room["size"]) <= [10, 10, 4])
    assert 0.2 <= room["reverberation_time"] <= 0.4
    assert all(1 <= distance <= 2 for distance in room["source_distances"])
    assert description["sensor_noise_db"] is None


def test_seed_and_index_decide(corpus, scene):
    assert_same(random_scene(corpus, CONDITION, index=3), scene)
    for other in (random_scene(corpus, CONDITION, index=2), random_scene(corpus, CONDITION, seed=1, index=3)):
        assert np.any(other.azimuths != scene.azimuths)
        assert other.description["room"] != scene.description["room"]
        assert np.any(other.images != scene.images)


@pytest.mark.parametrize(
    "noise",
    [
        {"sensor_noise": 30.0},
        {"diffuse_noise": 5.0},
        {"babble": 10.0},
        {"sensor_noise": 20.0, "diffuse_noise": 20.0, "babble": 20.0},
    ],
)
def test_noise_has_the_asked_level_and_leaves_the_rest_alone(corpus, scene, noise):
    noisy = random_scene(corpus, replace(CONDITION, **noise), index=3)
    np.testing.assert_array_equal(noisy.images, scene.images)
    np.testing.assert_array_equal(noisy.mixture, noisy.images.sum(axis=0) + noisy.noise)
    np.testing.assert_array_equal(noisy.azimuths, scene.azimuths)
    share = sum(10 ** (-below / 10) for below in noise.values())
    below = level(scene.mixture) - level(noisy.noise)
    # Two noises together are only nearly as strong as the sum of their powers.
    assert below == pytest.approx(-10 * np.log10(share), abs=1e-4 if len(noise) == 1 else 0.2)


def test_one_noise_does_not_change_the_other(corpus):
    both, sensor, diffuse = (
        random_scene(corpus, replace(CONDITION, sensor_noise=first, diffuse_noise=second), index=3).noise
        for first, second in [(20.0, 10.0), (20.0, None), (None, 10.0)]
    )
    np.testing.assert_allclose(both, sensor + diffuse, atol=1e-8)


def test_diffuse_noise_belongs_to_the_array(corpus):
    near, far = (
        random_scene(corpus, replace(CONDITION, microphones=f"linear:2:{distance}", diffuse_noise=10.0)).noise
        for distance in (0.001, 1.0)
    )
    assert np.corrcoef(near)[0, 1] > 0.99
    assert np.corrcoef(far)[0, 1] < 0.7


@pytest.mark.parametrize("num_sources", [3, 4])
def test_more_sources(corpus, num_sources):
    scene = random_scene(corpus, replace(CONDITION, num_sources=num_sources, smallest_angle=70.0))
    assert scene.images.shape[0] == num_sources
    assert len({source["speaker"] for source in scene.description["sources"]}) == num_sources
    differences = np.abs(np.angle(np.exp(1j * (scene.azimuths[:, None] - scene.azimuths))))
    assert differences[np.triu_indices(num_sources, 1)].min() >= np.radians(70) - 1e-9


def test_a_stored_scene_is_the_fresh_one(corpus, scene, tmp_path, monkeypatch):
    assert_same(random_scene(corpus, CONDITION, index=3, cache=tmp_path), scene)
    (file,) = tmp_path.iterdir()

    def refuse(*_):
        raise AssertionError("made anew")

    with monkeypatch.context() as patch:
        patch.setattr("vbss.scenes.mixtures.draw_excerpts", refuse)
        assert_same(random_scene(corpus, CONDITION, index=3, cache=tmp_path), scene)
        noisy = random_scene(corpus, replace(CONDITION, sensor_noise=30.0), index=3, cache=tmp_path)
        np.testing.assert_array_equal(noisy.images, scene.images)
    file.write_bytes(file.read_bytes()[:1000])
    assert_same(random_scene(corpus, CONDITION, index=3, cache=tmp_path), scene)
    assert list(tmp_path.iterdir()) == [file] and file.stat().st_size > 1000


def test_what_the_images_depend_on_decides_what_is_stored(corpus, tmp_path):
    changes = {
        "another array": {"microphones": "linear:2:0.1"},
        "another level": {"level": (0.0, 0.0)},
        "another angle": {"smallest_angle": 100.0},
    }
    random_scene(corpus, CONDITION, cache=tmp_path)
    for number, change in enumerate(changes.values(), 2):
        random_scene(corpus, replace(CONDITION, **change), cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == number
    few = SpeechCorpus(corpus.folder, dict(list(corpus.files.items())[:3]))
    random_scene(few, CONDITION, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == number + 1


def test_measured_rooms(corpus, responses_folder, tmp_path):
    condition = replace(CONDITION, num_sources=3, responses=responses_folder, room="room 2", diffuse_noise=20.0)
    scene = random_scene(corpus, condition, cache=tmp_path)
    assert scene.images.shape == (3, 2, 8000)
    np.testing.assert_array_equal(scene.microphone_positions, [[0.1, 0, 0], [-0.1, 0, 0]])
    degrees = sorted(source["azimuth_degrees"] for source in scene.description["sources"])
    assert degrees in ([0.0, 120.0, 240.0], [15.0, 120.0, 240.0])  # 0 and 15 are too near to each other
    np.testing.assert_allclose(np.sort(np.degrees(scene.azimuths) % 360), degrees, atol=1e-6)
    assert scene.description["room"] == {"responses": responses_folder.name, "name": "room 2"}
    np.testing.assert_allclose(scene.images[:, 1, 2:], 2 * scene.images[:, 0, :-2], atol=1e-6)
    assert_same(random_scene(corpus, condition, cache=tmp_path), scene)


def test_measured_rooms_are_drawn_if_none_is_named(corpus, responses_folder):
    condition = replace(CONDITION, responses=responses_folder)
    rooms = {random_scene(corpus, condition, index=index).description["room"]["name"] for index in range(8)}
    assert rooms == {"room 1", "room 2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sources": 1}, "num_sources must be a whole number, from 2 to 4, got 1"),
        ({"num_sources": 5}, "num_sources"),
        ({"sample_rate": 4000}, "sample_rate must be a whole number, 8000 or more"),
        ({"seconds": 0.5}, "seconds must be at least 1"),
        ({"seconds": float("nan")}, "seconds"),
        ({"num_sources": 4, "smallest_angle": 90.0}, "smallest_angle must leave room for 4 sources"),
        ({"reverberation_time": (0.4, 0.2)}, "reverberation_time must be its smallest and its largest"),
        ({"level": (0.0, float("inf"))}, "level"),
        ({"smallest_room": (6.0, 6.0, 5.0)}, "smallest_room"),
        ({"sensor_noise": float("nan")}, "sensor_noise must be a level in dB"),
        ({"room": "100"}, "room '100' is one of measured responses"),
    ],
)
def test_impossible_conditions_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Condition(**change)


def test_scenes_that_cannot_be_are_refused(corpus, responses_folder):
    few = SpeechCorpus(corpus.folder, dict(list(corpus.files.items())[:2]))
    with pytest.raises(InputError, match="2 speakers .* needs 3"):
        random_scene(few, replace(CONDITION, num_sources=3))
    with pytest.raises(InputError, match="index must be a whole number, 0 or more"):
        random_scene(corpus, CONDITION, index=-1)
    with pytest.raises(InputError, match="room must be one of room 1, room 2, got 'hall'"):
        random_scene(corpus, replace(CONDITION, responses=responses_folder, room="hall"))
    with pytest.raises(InputError, match="outside the room"):
        random_scene(corpus, replace(CONDITION, source_distance=(9.0, 9.0)))
