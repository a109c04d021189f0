import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import STFT
from vbss.errors import InputError

TOLERANCE = {"float32": 5e-6, "float64": 1e-13}


def noise(*shape, dtype="float64", seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("sample_rate", "window", "hop", "num_samples"),
    [
        (8000, 0.064, 0.016, 8000),
        (8000, 0.064, 0.016, 512),
        (22050, 0.064, 0.016, 9973),  # an odd window of 1411 samples, a hop that does not divide it
        (8000, 0.032, 0.016, 4001),
        (1000, 0.1, 0.09, 777),  # little overlap
    ],
)
def test_inverse_reconstructs_exactly(dtype, sample_rate, window, hop, num_samples):
    stft = STFT.init(sample_rate, window, hop)
    signals = noise(2, 3, num_samples, dtype=dtype)
    spectrogram = jax.jit(STFT.forward)(stft, signals)
    assert spectrogram.dtype == np.result_type(dtype, np.complex64)
    assert spectrogram.shape[:2] == (2, 3) and spectrogram.shape[-1] == len(stft.frequencies)
    reconstruction = jax.jit(STFT.inverse, static_argnums=2)(stft, spectrogram, num_samples)
    assert reconstruction.dtype == signals.dtype
    # Where windows overlap little, rounding is divided by the small sum of their squares.
    tolerance = TOLERANCE[dtype] * (30 if hop > 0.8 * window else 1)
    np.testing.assert_allclose(reconstruction, signals, rtol=0, atol=tolerance)


@pytest.mark.parametrize("window_length", [64, 65])
def test_forward_is_the_windowed_fourier_sum(window_length):
    stft = STFT(window_length, 16, 8000)
    signal = noise(400)
    spectrogram = stft.forward(signal)
    window = np.sin(np.pi * np.arange(window_length) / window_length) ** 2
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(window_length), stft.frequencies) / 8000)
    for frame in (0, 3, 20):
        extended = np.pad(np.asarray(signal), window_length // 2)
        segment = extended[frame * 16 : frame * 16 + window_length]
        np.testing.assert_allclose(spectrogram[frame], (segment * window) @ kernel / window.sum(), atol=1e-12)


def test_frequencies_and_scale_of_a_sinusoid():
    stft = STFT.init(8000, 0.064, 0.016)
    assert (stft.window_length, stft.hop_length) == (512, 128)
    time = np.arange(8000) / 8000
    spectrogram = stft.forward(jnp.asarray(0.6 * np.cos(2 * np.pi * 1000 * time)))
    magnitude = np.abs(spectrogram[20])
    assert stft.frequencies[np.argmax(magnitude)] == 1000
    np.testing.assert_allclose(magnitude.max(), 0.3, rtol=1e-6)


def test_under_vmap_and_grad():
    stft = STFT.init(8000)
    signals = noise(3, 2000)
    batched = stft.forward(signals)
    np.testing.assert_allclose(jax.jit(jax.vmap(stft.forward))(signals), batched, atol=1e-14)
    inverse = jax.jit(jax.vmap(lambda spectrogram: stft.inverse(spectrogram, 2000)))(batched)
    np.testing.assert_allclose(inverse, signals, atol=1e-13)

    def half_energy(signal):
        return 0.5 * jnp.sum(stft.inverse(stft.forward(signal), 2000) ** 2)

    # The round trip is the identity, so the gradient of half the energy is the signal.
    np.testing.assert_allclose(jax.jit(jax.grad(half_energy))(signals[0]), signals[0], atol=1e-12)


@pytest.mark.parametrize(
    ("window_length", "hop_length", "num_samples"),
    [(8, 2, 30), (9, 4, 31), (2, 1, 5), (16, 14, 33), (16, 7, 16)],
)
def test_touched_frames_are_those_that_a_sample_changes(window_length, hop_length, num_samples):
    stft = STFT(window_length, hop_length, 8000)
    several = np.isin(np.arange(num_samples), [1, 2, num_samples - 1])
    signals = np.stack([*np.eye(num_samples), np.zeros(num_samples), several])
    transform = jax.jit(lambda signals: (stft.forward(signals), jax.vmap(stft.touched_frames)(signals > 0)))
    spectrogram, touched = transform(signals)
    np.testing.assert_array_equal(touched, np.any(np.abs(spectrogram) > 0, axis=-1))


def test_equal_transforms_share_one_compilation():
    traces = 0

    @jax.jit
    def round_trip(stft, signal):
        nonlocal traces
        traces += 1
        return stft.inverse(stft.forward(signal), signal.shape[-1])

    signal = noise(2000)
    for _ in range(2):
        np.testing.assert_allclose(round_trip(STFT.init(8000), signal), signal, atol=1e-13)
    assert traces == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0,), "sample_rate"),
        ((True,), "sample_rate"),
        ((8000, 0.0), "window"),
        ((8000, float("nan")), "window"),
        ((8000, 0.064, -0.016), "hop"),
        ((8000, 0.064, 1e-5), "hop"),
        ((8000, 0.016, 0.064), "hop"),
        ((8000, 0.064, 0.064), "hop_length"),  # every window's first sample is under a zero only
        ((8000, 0.064, 0.0635), "hop_length"),
    ],
)
def test_durations_that_cannot_be_are_refused(arguments, named):
    with pytest.raises(InputError, match=named):
        STFT.init(*arguments)


@pytest.mark.parametrize("lengths", [(0, 1), (1, 1), (64, 0), (64, 65)])
def test_lengths_that_cannot_be_are_refused(lengths):
    with pytest.raises(InputError, match="_length"):
        STFT(*lengths, 8000)


def test_shapes_that_do_not_fit_are_refused():
    stft = STFT.init(8000)
    with pytest.raises(InputError, match="511 samples"):
        stft.forward(noise(511))
    with pytest.raises(InputError, match="is_lost has 511 samples"):
        stft.touched_frames(np.zeros(511, bool))
    spectrogram = stft.forward(noise(2000))
    with pytest.raises(InputError, match="frequencies"):
        stft.inverse(spectrogram[:, :-1], 2000)
    covered = (len(spectrogram) - 1) * stft.hop_length
    assert stft.inverse(spectrogram, covered).shape == (covered,)
    with pytest.raises(InputError, match="num_samples"):
        stft.inverse(spectrogram, covered + 1)
