import dataclasses
import os

import numpy as np
import pytest
import soundfile
from jaxtyping import TypeCheckError

from vbss.audio import Recording, read_recording, resample, write_recording
from vbss.errors import InputError


def noise(*shape, dtype="float32"):
    return np.random.default_rng(0).uniform(-0.9, 0.9, shape).astype(dtype)


@pytest.mark.parametrize(
    ("extension", "tolerance"), [(".wav", 0), (".WAV", 0), (".flac", 2.0**-23), (".aiff", 2.0**-15)]
)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_what_was_written_is_read(tmp_path, extension, tolerance, num_channels):
    samples = noise(num_channels, 100)
    path = tmp_path / f"sound{extension}"
    write_recording(path, samples, 22050)
    recording = read_recording(str(path))
    assert recording.sample_rate == 22050 and recording.samples.dtype == np.float32
    np.testing.assert_allclose(recording.samples, samples, rtol=0, atol=tolerance)
    assert os.listdir(tmp_path) == [path.name]


def test_wav_keeps_levels_above_full_scale(tmp_path):
    write_recording(tmp_path / "loud.wav", 10 * noise(1, 50), 8000)
    np.testing.assert_array_equal(read_recording(tmp_path / "loud.wav").samples, 10 * noise(1, 50))


def test_a_sample_rate_of_numpy_becomes_an_int(tmp_path):
    recording = Recording(noise(1, 50), 8000)
    object.__setattr__(recording, "sample_rate", np.int64(8000))  # past the annotations, which tests check
    recording.__post_init__()
    assert type(recording.sample_rate) is int
    assert type(resample(recording, np.int32(4000)).sample_rate) is int
    write_recording(tmp_path / "sound.wav", noise(1, 50), np.int64(8000))


def test_one_channel_may_be_written_without_its_axis(tmp_path):
    write_recording(tmp_path / "mono.wav", noise(50), 8000)
    np.testing.assert_array_equal(read_recording(tmp_path / "mono.wav").samples, noise(1, 50))


@pytest.mark.parametrize(("subtype", "dtype"), [("PCM_16", "float32"), ("PCM_32", "float64"), ("DOUBLE", "float64")])
def test_precision_of_the_file_is_kept(tmp_path, subtype, dtype):
    soundfile.write(tmp_path / "sound.wav", noise(100, 2, dtype="float64"), 8000, subtype=subtype)
    recording = read_recording(tmp_path / "sound.wav")
    assert recording.samples.dtype == dtype
    expected = soundfile.read(tmp_path / "sound.wav", dtype="float64")[0].T
    np.testing.assert_array_equal(recording.samples, expected)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "sound.wav"
    write_recording(path, noise(1, 50), 8000)

    def half_written(file, *args, **kwargs):
        file.write_bytes(b"RIFF")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", half_written)
    with pytest.raises(OSError, match="No space"):
        write_recording(path, noise(2, 70), 8000)
    assert os.listdir(tmp_path) == ["sound.wav"]
    np.testing.assert_array_equal(read_recording(path).samples, noise(1, 50))


def test_files_that_are_no_recordings_are_refused(tmp_path):
    with pytest.raises(InputError, match="no sound file .*missing.wav"):
        read_recording(tmp_path / "missing.wav")
    with pytest.raises(InputError, match="no sound file"):
        read_recording(tmp_path)
    for name in ("text.wav", "text.raw"):
        (tmp_path / name).write_text("This is not sound.")
        with pytest.raises(InputError, match=f"{name}.* cannot be read as a sound file"):
            read_recording(tmp_path / name)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, 2)), "empty"),
        (np.zeros((50, 2)), "silent"),
        (np.array([[0.1, 0.2], [0.3, np.nan]]), "finite; channel 1 is not at sample 1"),
        (np.array([[0.1, 0.2], [np.inf, 0.3]]), "finite; channel 0 is not at sample 1"),
    ],
)
def test_files_of_unusable_sound_are_refused(tmp_path, samples, message):
    soundfile.write(tmp_path / "sound.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=f"sound.wav: samples .*{message}"):
        read_recording(tmp_path / "sound.wav")


@pytest.mark.parametrize(
    ("samples", "sample_rate", "message"),
    [
        (noise(10), 8000, r"shape \(channels, samples\), got \(10,\)"),
        (noise(1, 2, 10), 8000, "shape"),
        (np.ones((1, 10), np.int16), 8000, "float32 or float64, got int16"),
        ([[0.1, 0.2]], 8000, "numpy array .* got list"),
        (noise(1, 10), 0, "sample_rate"),
        (noise(1, 10), 8000.0, "sample_rate"),
        (np.zeros((2, 10)), 8000, "silent"),
    ],
)
def test_recordings_that_cannot_be_are_refused(samples, sample_rate, message):
    # Where annotations are checked too, they are the first to object to a wrong shape or type.
    with pytest.raises((InputError, TypeCheckError)) as error:
        Recording(samples, sample_rate)
    assert error.type is TypeCheckError or error.match(message)


def test_a_recording_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recording(noise(1, 10), 8000).sample_rate = 16000  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "samples", "sample_rate", "message"),
    [
        ("sound", noise(1, 10), 8000, "extension"),
        ("sound.txt", noise(1, 10), 8000, "extension"),
        ("sound.raw", noise(1, 10), 8000, "extension"),
        ("nowhere/sound.wav", noise(1, 10), 8000, "existing folder"),
        ("sound.wav", noise(1, 1, 10), 8000, "shape"),
        ("sound.wav", noise(1, 0), 8000, "empty"),
        ("sound.wav", np.full((1, 3), np.nan), 8000, "finite"),
        ("sound.wav", noise(1, 10), 0, "sample_rate"),
        ("sound.flac", 2 * noise(1, 10), 8000, "clip"),
        ("sound.flac", noise(20, 10), 8000, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, samples, sample_rate, message):
    with pytest.raises(InputError, match=message):
        write_recording(tmp_path / name, samples, sample_rate)
    assert os.listdir(tmp_path) == []


def test_a_file_is_not_written_over_a_folder(tmp_path):
    (tmp_path / "sound.wav").mkdir()
    with pytest.raises(InputError, match="sound.wav"):
        write_recording(tmp_path / "sound.wav", noise(1, 10), 8000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("old", "new"), [(16000, 8000), (44100, 16000), (8000, 48000)])
def test_resampling_keeps_a_sinusoid(dtype, old, new):
    def sinusoids(rate):
        return np.stack([np.sin(2 * np.pi * f * np.arange(rate) / rate) for f in (440, 1000)]).astype(dtype)

    recording = resample(Recording(sinusoids(old), old), new)
    assert recording.sample_rate == new and recording.samples.dtype == dtype and recording.samples.shape == (2, new)
    middle = slice(new // 10, -new // 10)
    np.testing.assert_allclose(recording.samples[:, middle], sinusoids(new)[:, middle], atol=1e-4)


def test_resampling_to_the_same_rate_changes_nothing_and_to_none_is_refused():
    recording = Recording(noise(1, 10), 8000)
    assert resample(recording, 8000) is recording
    with pytest.raises(InputError, match="sample_rate"):
        resample(recording, 0)
