"""Many recordings: what is compiled for them, what is found in them, and how they are shared out."""

import jax
import numpy as np
import pytest
import soundfile

import vbss
from vbss.audio import STFT, read_microphone_positions
from vbss.errors import InputError
from vbss.inference import Status
from vbss.separation import many
from vbss.separation.many import Shape, bucket_length, separate_many, share

SAMPLE_RATE = 8000
POSITIONS = read_microphone_positions("circular:4:0.08")
SETTINGS = {"model": "cgmm", "max_steps": 3, "window": 0.064, "num_directions": 24}
LENGTHS = {"shorter": 7700, "longer": 8100}  # samples; both are extended to 8192


def noises(num_samples, seed):
    """Two noises that take turns, each with an array's own gains, and a little noise: not unlike an array recording."""
    rng = np.random.default_rng(seed)
    gains = np.exp(0.3 * rng.standard_normal((2, 4)))
    turns = np.arange(num_samples) // 800 % 2 == np.arange(2)[:, None]
    sounds = 0.1 * turns * rng.standard_normal((2, num_samples))
    return sounds.T @ gains + 1e-3 * rng.standard_normal((num_samples, 4))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    paths = {name: folder / f"{name}.wav" for name in (*LENGTHS, "mono", "missing", "brief")}
    for seed, (name, length) in enumerate(LENGTHS.items()):
        soundfile.write(paths[name], noises(length, seed), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(paths["mono"], noises(8000, 0)[:, :1], SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(paths["brief"], noises(300, 0), SAMPLE_RATE, subtype="FLOAT")
    return paths


@pytest.fixture(scope="module")
def outcomes(files):
    """By name; and how often JAX had traced or compiled something when each was there."""
    count, found, counts = 0, {}, {}

    def listen(event, duration, **_):
        nonlocal count
        count += "compile" in event or "trace" in event

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for outcome in separate_many(files, POSITIONS, 2, all_channels=True, **SETTINGS):
            found[outcome.name], counts[outcome.name] = outcome, count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return found, counts


def test_nothing_is_compiled_for_a_second_recording_of_similar_length(outcomes):
    found, counts = outcomes
    assert list(found) == ["missing", "mono", "brief", "shorter", "longer"]
    assert counts["shorter"] > counts["brief"]
    assert counts["longer"] == counts["shorter"]


def test_silence_at_the_end_changes_hardly_anything(outcomes):
    outcome = outcomes[0]["shorter"]
    found, expected = outcome.separation, vbss.separate(outcome.recording, POSITIONS, 2, **SETTINGS)
    assert outcome.error is None and outcome.recording.samples.shape == (4, LENGTHS["shorter"])
    assert found.sources.shape == expected.sources.shape and found.images.shape == (2, 4, LENGTHS["shorter"])
    assert found.masks.shape == expected.masks.shape
    np.testing.assert_allclose(found.masks, expected.masks, atol=1e-3)
    np.testing.assert_array_equal(found.directions, expected.directions)
    np.testing.assert_allclose(found.sources, expected.sources, atol=1e-4 * np.abs(expected.sources).max())
    np.testing.assert_array_equal(found.images[:, 0], found.sources)
    np.testing.assert_allclose(found.energy_shares, expected.energy_shares, atol=1e-4)
    assert found.warnings == expected.warnings


def test_a_recording_that_cannot_be_separated_does_not_end_the_others(outcomes):
    for name, message in (("missing", "there is no sound file"), ("mono", "one channel"), ("brief", "one window")):
        outcome = outcomes[0][name]
        assert outcome.separation is None and isinstance(outcome.error, InputError)
        assert message in str(outcome.error)
    assert outcomes[0]["missing"].recording is None and outcomes[0]["mono"].recording is not None


def test_lack_of_memory_is_told_and_bugs_are_not_hidden(monkeypatch, files):
    errors = [RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), RuntimeError("a bug")]

    def separate_recorded(*_, **options):
        raise errors.pop(0)

    monkeypatch.setattr(many, "separate_recorded", separate_recorded)
    outcomes = separate_many({name: files[name] for name in LENGTHS}, POSITIONS, 2, **SETTINGS)
    assert isinstance(next(outcomes).error, MemoryError)
    with pytest.raises(RuntimeError, match="a bug"):
        next(outcomes)


def test_an_interruption_ends_all(outcomes, files, monkeypatch):
    separation = outcomes[0]["shorter"].separation
    interrupted = type(
        "Interrupted", (), {"solutions": {"mixture model": type("", (), {"status": Status.interrupted})}}
    )
    monkeypatch.setattr(many, "_padded_separation", lambda *_: interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(separate_many({"shorter": files["shorter"]}, POSITIONS, 2))
    assert separation.solution.status is Status.max_steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "rhubarb"}, "model must be one of"),
        ({"seed": -1}, "seed"),
        ({"num_sources": {"other": 2}}, "num_sources has no number for the recording 'shorter'"),
        ({"num_sources": 25}, "num_sources must be a whole number, from 1 to 24"),
        ({"microphone_positions": None}, "microphone_positions must be given"),
    ],
)
def test_what_no_recording_can_be_separated_with_is_refused_at_once(files, changes, message):
    arguments = {"microphone_positions": POSITIONS, "num_sources": 2} | SETTINGS | changes
    with pytest.raises(InputError, match=message):
        separate_many({"shorter": files["shorter"]}, **arguments)


def test_lengths_have_eight_steps_per_octave():
    lengths = np.arange(1, 5000)
    buckets = np.array([bucket_length(length) for length in lengths.tolist()])
    assert np.all((buckets >= lengths) & (buckets <= 1.125 * lengths))
    assert np.unique(buckets[(lengths > 1024) & (lengths <= 2048)]).size == 8
    assert all(bucket_length(bucket) == bucket for bucket in buckets.tolist())


@pytest.mark.parametrize(("window", "hop"), [(256, 64), (255, 64), (256, 100)])
@pytest.mark.parametrize("num_samples", [256, 257, 1000, 1024])
def test_number_of_frames(window, hop, num_samples):
    stft = STFT(window, hop, SAMPLE_RATE)
    shape = jax.eval_shape(stft.forward, jax.ShapeDtypeStruct((num_samples,), float)).shape
    assert many._num_frames(stft, num_samples) == shape[0]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
def test_each_recording_has_one_process_and_shares_are_equal(num_processes):
    rng = np.random.default_rng(num_processes)
    shapes = {
        f"{number:02}": Shape(SAMPLE_RATE, 4, bucket_length(int(length)))
        for number, length in enumerate(rng.integers(8000, 80000, 60))
    }
    shares = [share(shapes, process, num_processes) for process in range(num_processes)]
    assert sorted(name for own in shares for name in own) == sorted(shapes)
    totals = [sum(shapes[name].num_samples for name in own) for own in shares]
    assert max(totals) - min(totals) <= 2 * max(shape.num_samples for shape in shapes.values())
    kinds = [{shapes[name] for name in own} for own in shares]
    assert sum(map(len, kinds)) <= len(set(shapes.values())) + num_processes - 1
    assert shares == [share(dict(reversed(shapes.items())), process, num_processes) for process in range(num_processes)]


def test_recordings_that_cannot_be_read_have_a_process_too():
    shapes = dict.fromkeys("abc", Shape(0, 0, 0))
    assert share(shapes, 0, 2) == ["a", "b", "c"] and share(shapes, 1, 2) == []
    assert share({}, 0, 2) == []
