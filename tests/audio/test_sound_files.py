import numpy as np
import pytest
import soundfile

from vbss.audio.sound_files import SoundFiles
from vbss.errors import InputError

NOISE = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 1000)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """A file of two channels and one of one, of the same length."""
    soundfile.write(tmp_path / "two.wav", NOISE[:2].T, 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "one.flac", NOISE[2], 8000, subtype="PCM_24")
    return SoundFiles.open(tmp_path / "two.wav", tmp_path / "one.flac")


def test_the_headers_tell_what_there_is(files):
    assert (files.sample_rate, files.num_channels, files.num_samples) == (8000, 3, 1000)
    assert files.dtype == np.float32


@pytest.mark.parametrize("length", [1, 300, 1000, 5000])
def test_the_pieces_make_up_the_whole(files, length):
    pieces = list(files.pieces(length))
    assert {piece.shape[1] for piece in pieces[:-1]} <= {length}
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), files.read())
    np.testing.assert_allclose(files.read(), NOISE, rtol=0, atol=2.0**-23)
    np.testing.assert_array_equal(files.read(200, 317), files.read()[:, 200:317])


def test_one_file_of_double_precision_makes_all_double(tmp_path, files):
    soundfile.write(tmp_path / "double.wav", NOISE[0].astype(float) / 3, 8000, subtype="DOUBLE")
    samples = SoundFiles.open(*files.paths, tmp_path / "double.wav").read()
    assert samples.dtype == np.float64
    np.testing.assert_array_equal(samples[3], NOISE[0].astype(float) / 3)


def test_files_that_do_not_fit_are_refused(tmp_path, files):
    soundfile.write(tmp_path / "fast.wav", NOISE.T, 16000)
    soundfile.write(tmp_path / "short.wav", NOISE[:, :999].T, 8000)
    with pytest.raises(InputError, match="sample rate of 8000 Hz, but '.*fast.wav' of 16000 Hz"):
        SoundFiles.open(*files.paths, tmp_path / "fast.wav")
    with pytest.raises(InputError, match="two.wav' has 1000 samples, but '.*short.wav' has 999"):
        SoundFiles.open(*files.paths, tmp_path / "short.wav")
    with pytest.raises(InputError, match="at least one path"):
        SoundFiles.open()


def test_a_file_that_became_shorter_is_noticed(files):
    soundfile.write(files.paths[0], NOISE[:2, :400].T, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(files.read(0, 400)[:2], NOISE[:2, :400])
    with pytest.raises(InputError, match="two.wav"):
        files.read(300, 500)
