from dataclasses import replace

import numpy as np
import pytest
import soundfile

from vbss.separation.growing import State, append, clear, finish, source_files

SOUND = np.random.default_rng(0).uniform(-2, 2, (2, 100)).astype(np.float32)


@pytest.fixture
def state(tmp_path):
    """After a first block of 60 samples, which is written."""
    append(tmp_path, SOUND[:, :60], 8000, 0, 100)
    state = State("who", 1, 60, SOUND[:, 60:], np.eye(2), np.array([1.0, 2.0]), [{"start": 0.0}], 1.5)
    state.write(tmp_path)
    return state


def test_a_state_is_read_as_it_was_written(tmp_path, state):
    found = State.read(tmp_path, "who")
    assert found is not None and found.tail.dtype == np.float32
    for name, value in vars(state).items():
        np.testing.assert_array_equal(getattr(found, name), value)
        assert isinstance(getattr(found, name), type(value))


def test_only_a_whole_state_of_the_same_run_counts(tmp_path, state):
    assert State.read(tmp_path, "another") is None
    assert State.read(tmp_path / "elsewhere", "who") is None
    replace(state, num_samples=61).write(tmp_path)  # more than the files hold
    assert State.read(tmp_path, "who") is None
    state.write(tmp_path)
    (tmp_path / "source_2.wav").write_bytes(b"RIFF")
    assert State.read(tmp_path, "who") is None
    append(tmp_path, SOUND[:, :60], 8000, 0, 100)
    whole = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "state.npz").write_bytes(whole[: len(whole) // 2])
    assert State.read(tmp_path, "who") is None


def test_what_a_block_wrote_that_was_cut_off_is_written_again(tmp_path, state):
    append(tmp_path, -SOUND[:, 60:80], 8000, 60, 100)  # the state does not know of it
    append(tmp_path, SOUND[:, 60:], 8000, 60, 100)
    for path, expected in zip(source_files(tmp_path, 2), SOUND, strict=True):
        sound, rate = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(sound, expected)
        assert rate == 8000 and soundfile.info(path).subtype == "FLOAT"


def test_nothing_but_sounds_is_left(tmp_path, state):
    finish(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"source_1.wav", "source_2.wav"}
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sounds_too_long_for_wav_are_of_the_format_that_holds_them(tmp_path):
    append(tmp_path, SOUND, 8000, 0, 2**31)
    assert soundfile.info(tmp_path / "source_1.wav").format == "RF64"
    append(tmp_path, SOUND, 8000, 100, 2**31)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "source_2.wav", dtype="float32")[0], np.tile(SOUND[1], 2))
