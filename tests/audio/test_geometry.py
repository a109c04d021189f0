import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import STFT, azimuth_grid, read_microphone_positions, steering_vectors
from vbss.audio.geometry import check_microphone_positions
from vbss.errors import InputError


def test_circular_array():
    positions = read_microphone_positions("circular:4:0.08")
    expected = [[0.04, 0, 0], [0, 0.04, 0], [-0.04, 0, 0], [0, -0.04, 0]]
    np.testing.assert_allclose(positions, expected, atol=1e-15)


def test_linear_array():
    np.testing.assert_allclose(
        read_microphone_positions("linear:3:0.05"), [[-0.05, 0, 0], [0, 0, 0], [0.05, 0, 0]], atol=1e-15
    )


@pytest.mark.parametrize(
    "text",
    [
        "0.1 0.2 0.3\n-1e-1 0 0\n",
        "x,y,z\n0.1, 0.2, 0.3\n-0.1,0,0\n",
        "# my array\n\n  x\ty\tz  \n0.1\t0.2\t0.3 # left\n\n-0.1\t0\t0",
        "\ufeffx,y,z\r\n0.1,0.2,0.3\r\n-0.1,0,0\r\n",
    ],
)
def test_array_file(tmp_path, text):
    path = tmp_path / "array.csv"
    path.write_text(text, encoding="utf-8", newline="")
    for spec in (path, str(path)):
        np.testing.assert_array_equal(read_microphone_positions(spec), [[0.1, 0.2, 0.3], [-0.1, 0, 0]])


def test_two_columns_lie_in_the_horizontal_plane(tmp_path):
    path = tmp_path / "array.txt"
    path.write_text("1 2\n3 4\n")
    np.testing.assert_array_equal(read_microphone_positions(path), [[1, 2, 0], [3, 4, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no microphone positions"),
        ("x y z\n", "holds no microphone positions"),
        ("0.1\n0.2\n", "line 1"),
        ("0 0 0 0\n", "line 1"),
        ("0,,1\n1,1,1\n", "line 1"),
        ("0 0 0\n1 zwei 3\n", "line 2"),
        ("x y\nx y\n0 0\n", "line 2"),
        ("0 0 0\n1 1\n", "line 2"),
        ("0 0 0\n", "at least 2"),
        ("0 0 0\n1 nan 0\n", "finite; microphone 1 "),
        ("0 0 0\n1 0 0\n0 0 1e-9\n", "microphones 0 and 2"),
        ("0 0 0\n40 0 0\n0 120 0\n", "millimetres"),
    ],
)
def test_broken_array_files_are_refused(tmp_path, text, message):
    path = tmp_path / "array.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_microphone_positions(path)
    assert "array.txt" in str(error.value)


def test_unreadable_array_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file .*missing.*circular:M:DIAMETER"):
        read_microphone_positions(tmp_path / "missing.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_microphone_positions(tmp_path)
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x80")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_microphone_positions(tmp_path / "sound.wav")


@pytest.mark.parametrize(
    "spec",
    [
        "circular:four:0.08",
        "circular:4:",
        "linear:1:0.1",
        "linear:4:-0.1",
        "linear:4:inf",
        "circular:4:800",
        "circular:40000:0.1",
    ],
)
def test_broken_shorthand_is_refused(spec):
    with pytest.raises(InputError, match=spec):
        read_microphone_positions(spec)


def test_positions_of_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"array must have shape \(microphones, 3\), got \(4, 2\)"):
        check_microphone_positions(np.zeros((4, 2)), "array")


@pytest.mark.parametrize(
    "positions", [[[0, 0, 0], [1, 0, 0]], np.zeros((4, 3), complex), np.array([["a"] * 3] * 2), None]
)
def test_positions_that_are_no_real_numbers_are_refused(positions):
    with pytest.raises(InputError, match="array must be an array of real numbers"):
        check_microphone_positions(positions, "array")


def test_too_many_microphones_are_refused():
    with pytest.raises(InputError, match="at most 1000 microphones, got 1001"):
        check_microphone_positions(np.arange(3003.0).reshape(1001, 3))


def test_azimuth_grid():
    np.testing.assert_allclose(np.degrees(azimuth_grid(8)), np.arange(0, 360, 45))
    with pytest.raises(InputError, match="num_directions"):
        azimuth_grid(0)


def test_a_microphone_towards_the_source_hears_it_earlier():
    """Microphone 1 lies ten samples of sound's way nearer to a source at azimuth 0 than microphone 0."""
    sample_rate, speed_of_sound = 16000, 340.0
    stft = STFT.init(sample_rate)
    positions = np.array([[0, 0, 0], [10 / sample_rate * speed_of_sound, 0, 0]])
    signal = np.random.default_rng(0).standard_normal(sample_rate)
    heard = np.stack([signal, np.roll(signal, -10)])
    spectrogram = np.asarray(stft.forward(jnp.asarray(heard)))
    cross = np.sum(spectrogram[1] * spectrogram[0].conj(), axis=0)
    steering = np.asarray(steering_vectors(positions, azimuth_grid(4), stft.frequencies, speed_of_sound))
    predicted = steering[..., 1] * steering[..., 0].conj()
    agreement = np.real(predicted.conj().T @ (cross / np.abs(cross))) / len(cross)
    assert agreement[0] > 0.99
    assert np.all(agreement[1:] < 0.3)


def test_steering_vectors_match_simulated_plane_waves():
    """Fractional delays, by the Fourier transform of a whole periodic signal, for an array in space."""
    sample_rate, speed_of_sound, num_samples = 8000, 343.0, 8000
    stft = STFT.init(sample_rate)
    rng = np.random.default_rng(1)
    positions = rng.uniform(-0.05, 0.05, (4, 3)) + [5.0, -3.0, 1.0]
    azimuths = azimuth_grid(7)
    steering = np.asarray(steering_vectors(positions, azimuths, stft.frequencies))
    np.testing.assert_allclose(np.abs(steering), 1, atol=1e-14)
    # Relative to the centroid, the phases of the microphones add up to nothing at low frequency.
    assert np.all(np.abs(np.angle(steering[1]).sum(-1)) < 1e-12)
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    omega = 2 * np.pi * np.fft.rfftfreq(num_samples, 1 / sample_rate)
    for index, azimuth in enumerate(azimuths):
        advance = positions @ [np.cos(azimuth), np.sin(azimuth), 0] / speed_of_sound
        advance -= advance[0]
        heard = np.fft.irfft(spectrum * np.exp(1j * omega * advance[:, None]), num_samples)
        spectrogram = np.asarray(stft.forward(jnp.asarray(heard)))[:, 2:-2]
        cross = np.sum(spectrogram * spectrogram[:1].conj(), axis=1)[:, 1:-1]
        predicted = (steering[:, index] * steering[:, index, :1].conj()).T[:, 1:-1]
        error = np.angle(cross * predicted.conj())
        assert np.abs(error).max() < 0.1


@pytest.mark.parametrize("speed_of_sound", [0.0, -343.0, float("inf")])
def test_impossible_speed_of_sound_is_refused(speed_of_sound):
    positions = read_microphone_positions("linear:2:0.1")
    with pytest.raises(InputError, match="speed_of_sound"):
        steering_vectors(positions, azimuth_grid(4), np.array([100.0]), speed_of_sound)
