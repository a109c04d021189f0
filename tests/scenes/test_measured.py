import numpy as np
import pytest

from vbss.audio import write_recording
from vbss.errors import InputError
from vbss.scenes import MeasuredResponses

TABLE = "file,azimuth_degrees,room\nleft.wav,90,hall\nright.wav,-90,hall\nleft.wav,90.0,cell\n"


def write(folder, names, channels=2, sample_rate=8000):
    for number, name in enumerate(names):
        responses = np.zeros((channels, 400))
        responses[:, 10 + number] = 1.0 + np.arange(channels)
        write_recording(folder / name, responses.astype(np.float32), sample_rate)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, ["left.wav", "right.wav"])
    (tmp_path / "responses.csv").write_text(TABLE)
    (tmp_path / "microphones.txt").write_text("0.1 0 0\n-0.1 0 0\n")
    return tmp_path


def test_a_described_set(folder):
    responses = MeasuredResponses.read(folder)
    assert responses.files == {"cell": {90.0: "left.wav"}, "hall": {90.0: "left.wav", 270.0: "right.wav"}}
    np.testing.assert_array_equal(responses.microphone_positions, [[0.1, 0, 0], [-0.1, 0, 0]])
    response = responses.response("hall", 270.0, 8000)
    expected = np.zeros((2, 400))
    expected[:, 11] = [1.0, 2.0]
    np.testing.assert_array_equal(response, expected)
    assert responses.response("hall", 270.0, 16000).shape == (2, 800)


def test_the_r3vival_set_is_known_by_its_names(tmp_path):
    names = [f"abs{room}_az{azimuth:03d}_1.5m_7ch_16k.flac" for room in ("050", "100") for azimuth in (0, 30, 90)]
    for name in names:
        write(tmp_path, [name], channels=1)
    (tmp_path / "README.md").write_text("")
    responses = MeasuredResponses.read(str(tmp_path))
    # The names count clockwise.
    assert set(responses.files) == {"050", "100"}
    assert responses.files["100"] == {0.0: names[3], 330.0: names[4], 270.0: names[5]}
    np.testing.assert_allclose(np.linalg.norm(responses.microphone_positions, axis=1), 0.05)
    # The first is in front, and of a source on the left the fourth and sixth are in front.
    assert np.argmax(responses.microphone_positions @ [1.0, 0.0, 0.0]) == 0
    np.testing.assert_allclose((responses.microphone_positions @ [0.0, 1.0, 0.0])[[3, 5]], 0.05 / np.sqrt(2))


def test_channels_beyond_the_array_are_ignored(folder):
    write(folder, ["left.wav"], channels=3)
    assert MeasuredResponses.read(folder).response("hall", 90.0, 8000).shape == (2, 400)


def test_wrong_files_are_refused(folder):
    responses = MeasuredResponses.read(folder)
    write(folder, ["left.wav"], channels=1)
    with pytest.raises(InputError, match="1 channels for 2 microphones"):
        responses.response("hall", 90.0, 8000)
    write_recording(folder / "left.wav", np.array([[1.0, 0.0], [0.0, 0.0]]), 8000)
    with pytest.raises(InputError, match="silent in one of its channels"):
        responses.response("hall", 90.0, 8000)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,room\nleft.wav,hall\n", "no column 'azimuth_degrees'"),
        ("file,azimuth_degrees,room\nleft.wav,west,hall\n", "must be a number, got 'west'"),
        ("file,azimuth_degrees,room\nfar.wav,0,hall\n", "'far.wav', which is not there"),
        ("file,azimuth_degrees,room\n", "neither"),
    ],
)
def test_wrong_descriptions_are_refused(folder, table, message):
    (folder / "responses.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        MeasuredResponses.read(folder)


def test_folders_without_responses_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither responses.csv nor R3VIVAL"):
        MeasuredResponses.read(tmp_path / "empty")
    with pytest.raises(InputError, match="no folder of responses"):
        MeasuredResponses.read(tmp_path / "missing")
    (folder / "microphones.txt").unlink()
    with pytest.raises(InputError, match=r"microphones.txt"):
        MeasuredResponses.read(folder)
