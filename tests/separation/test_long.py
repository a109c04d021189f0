"""Long recordings, of sound that is separated quickly: a small window, few steps, one filter for a block."""

import numpy as np
import pytest
import soundfile
from plane_waves import POSITIONS, SAMPLE_RATE, plane_waves

import vbss
from vbss.errors import InputError
from vbss.separation import long, separate_long

QUICK = {"model": vbss.Pipeline(output=vbss.Wiener(), start_window=None), "max_steps": 5, "window": 0.064, "hop": 0.032}
BLOCKS = {"block": 2.0, "overlap": 0.5}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Seven seconds of two noises that take turns; one of them is silent from 2 to 4 s. Images, and the file."""
    rng = np.random.default_rng(0)
    num_samples = 7 * SAMPLE_RATE
    turns = np.repeat(rng.permuted(np.tile([[1.0], [0.0]], (1, 70)), axis=0), num_samples // 70, axis=1)
    turns[1, 2 * SAMPLE_RATE : 4 * SAMPLE_RATE] = 0
    images = plane_waves(0.1 * turns * rng.standard_normal((2, num_samples)), np.array([np.pi / 3, np.pi]))
    path = tmp_path_factory.mktemp("long") / "mix.wav"
    noise = 1e-3 * rng.standard_normal(images.shape[1:])
    soundfile.write(path, (images.sum(0) + noise).T, SAMPLE_RATE, subtype="FLOAT")
    return images, path


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    """What an uninterrupted run gives."""
    folder, told = tmp_path_factory.mktemp("whole"), []
    result = separate_long(scene[1], POSITIONS, 2, folder, progress=lambda *done: told.append(done), **BLOCKS, **QUICK)
    return result, told


def sounds(result):
    return np.stack([soundfile.read(path, dtype="float32")[0] for path in result.sources])


def test_blocks_make_up_the_whole_recording(whole):
    result, told = whole
    assert told == [(done, 5) for done in range(6)]
    assert [(block.start, block.stop) for block in result.blocks] == [(0, 2), (1.5, 3.5), (3, 5), (4.5, 6.5), (5, 7)]
    assert (result.sample_rate, result.num_samples, result.reference_microphone) == (SAMPLE_RATE, 7 * SAMPLE_RATE, 0)
    assert {path.name for path in result.sources[0].parent.iterdir()} == {"source_1.wav", "source_2.wav"}
    sources = sounds(result)
    np.testing.assert_allclose(result.energies, np.sum(sources.astype(float) ** 2, 1), rtol=1e-5)
    np.testing.assert_allclose(result.energy_shares, result.energies / result.energies.sum())


def test_sources_stay_who_they_are(scene, whole):
    images, (result, _) = scene[0], whole
    sources, truth = sounds(result), images[:, 0]
    for start in range(7):
        second = slice(start * SAMPLE_RATE, (start + 1) * SAMPLE_RATE)
        error = np.sum((sources[:, second] - truth[:, second]) ** 2, 1)
        heard = np.sum(truth[:, second] ** 2, 1)
        assert np.all(error < 0.01 * heard.max())
    places = [block.directions[0] for block in result.blocks]
    np.testing.assert_allclose(places, np.pi / 3, atol=np.radians(5.1))


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on(scene, whole, tmp_path, monkeypatch, stop_after):
    def stop(done, blocks):
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_long(scene[1], POSITIONS, 2, tmp_path, progress=stop, **BLOCKS, **QUICK)
    if stop_after == 3:  # in the middle of writing the next block
        with soundfile.SoundFile(tmp_path / "source_1.wav", "r+") as file:
            file.seek(0, soundfile.SEEK_END)
            file.write(np.ones(777))
    told = []
    again = separate_long(scene[1], POSITIONS, 2, tmp_path, progress=lambda *d: told.append(d), **BLOCKS, **QUICK)
    assert told[0] == (stop_after, 5)
    np.testing.assert_array_equal(sounds(again), sounds(whole[0]))
    assert again.blocks == whole[0].blocks


def test_another_question_starts_anew(scene, tmp_path):
    def stop(done, blocks):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_long(scene[1], POSITIONS, 2, tmp_path, progress=stop, **BLOCKS, **QUICK)
    told = []

    def tell(*done):
        told.append(done)
        raise KeyboardInterrupt

    for change in ({"seed": 1}, {"reference_microphone": 1}, {"overlap": 0.6}):
        with pytest.raises(KeyboardInterrupt):
            separate_long(scene[1], POSITIONS, 2, tmp_path, progress=tell, **BLOCKS | QUICK | change)
    assert [done for done, _ in told] == [0, 0, 0]


def test_silence_between_blocks_of_sound(scene, tmp_path):
    samples, _ = soundfile.read(scene[1])
    samples[3 * SAMPLE_RATE // 2 : 4 * SAMPLE_RATE] = 0  # the second block
    soundfile.write(tmp_path / "mix.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    result = separate_long(tmp_path / "mix.wav", POSITIONS, 2, tmp_path, **BLOCKS, **QUICK)
    assert result.blocks[1].warnings == ["the block is silent."]
    assert result.blocks[1].directions == [None, None] and result.blocks[1].statuses == {}
    assert result.warnings[-1].endswith("blocks are doubtful, see their own warnings.")
    sources, truth = sounds(result), scene[0][:, 0]
    np.testing.assert_array_equal(sources[:, 2 * SAMPLE_RATE : 3 * SAMPLE_RATE], 0)
    end = slice(5 * SAMPLE_RATE, None)
    assert np.all(np.sum((sources[:, end] - truth[:, end]) ** 2, 1) < 0.1 * np.sum(truth[:, end] ** 2, 1))


def test_a_short_recording_is_one_block(scene, tmp_path):
    samples, _ = soundfile.read(scene[1], frames=2 * SAMPLE_RATE - 5)
    soundfile.write(tmp_path / "mix.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    result = separate_long([tmp_path / "mix.wav"], POSITIONS, 2, tmp_path, **BLOCKS, **QUICK)
    assert len(result.blocks) == 1 and sounds(result).shape == (2, 2 * SAMPLE_RATE - 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 0.0}, "block must be a positive number"),
        ({"overlap": 1.1}, "overlap must be at most half of the block"),
        ({"overlap": 1e-9}, "overlap"),
        ({"max_steps": 0}, "max_steps"),
        ({"reference_microphone": 4}, "reference_microphone"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(scene, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(long, "locate_recorded", None)
    with pytest.raises(InputError, match=message):
        separate_long(scene[1], POSITIONS, 2, tmp_path, **BLOCKS | QUICK | change)


def test_a_sample_that_is_not_finite_is_found_before_any_work(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(long, "locate_recorded", None)
    samples, _ = soundfile.read(scene[1])
    samples[50_000, 2] = np.nan
    soundfile.write(tmp_path / "mix.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="recording must be finite; channel 2 is not at sample 50000"):
        separate_long(tmp_path / "mix.wav", POSITIONS, 2, tmp_path, **BLOCKS, **QUICK)


def test_blocks_of_an_unknown_array(scene, tmp_path):
    quick = QUICK | {"model": "cacgmm", "max_steps": 10}
    result = separate_long(scene[1], None, 2, tmp_path, **BLOCKS, **quick)
    assert all(block.directions is None for block in result.blocks)
    sources, truth = sounds(result), scene[0][:, 0]
    order = [0, 1] if np.abs(sources[0] @ truth[0]) > np.abs(sources[0] @ truth[1]) else [1, 0]
    for start in range(7):
        second = slice(start * SAMPLE_RATE, (start + 1) * SAMPLE_RATE)
        error = np.sum((sources[order][:, second] - truth[:, second]) ** 2, 1)
        assert np.all(error < 0.05 * np.sum(truth[:, second] ** 2, 1).max())
