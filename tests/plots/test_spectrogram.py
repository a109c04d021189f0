import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from vbss.audio import STFT
from vbss.errors import InputError
from vbss.plots import plot_mask, plot_spectrogram

SAMPLE_RATE = 8000


@pytest.fixture
def ax():
    return Figure().add_subplot()


def sinusoid(frequency, amplitude, seconds=1.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def brightest(image):
    """Time in s and frequency in kHz of the middle of the brightest cell."""
    values = image.get_array()
    row, column = np.unravel_index(np.argmax(values), values.shape)
    left, right, bottom, top = image.get_extent()
    return (
        left + (column + 0.5) * (right - left) / values.shape[1],
        bottom + (row + 0.5) * (top - bottom) / values.shape[0],
    )


@pytest.mark.parametrize("window_length, hop_length, num_samples", [(512, 128, 8000), (511, 200, 7003), (64, 32, 64)])
def test_levels_are_those_of_the_transform(ax, window_length, hop_length, num_samples):
    samples = np.random.default_rng(0).standard_normal(num_samples)
    stft = STFT(window_length, hop_length, SAMPLE_RATE)
    expected = 20 * np.log10(2 * np.abs(stft.forward(jnp.asarray(samples))))
    image = plot_spectrogram(ax, samples, SAMPLE_RATE, window=window_length / SAMPLE_RATE, hop=hop_length / SAMPLE_RATE)
    low, high = image.get_clim()
    np.testing.assert_allclose(high, expected.max())
    np.testing.assert_allclose(low, expected.max() - 60)
    np.testing.assert_allclose(image.get_array().T, np.maximum(expected, low), atol=1e-6)


def test_chunks_do_not_show(ax, monkeypatch):
    samples = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    whole = plot_spectrogram(ax, samples, SAMPLE_RATE).get_array()
    monkeypatch.setattr("vbss.plots.spectrogram._CHUNK", 5000)
    np.testing.assert_allclose(plot_spectrogram(ax, samples, SAMPLE_RATE).get_array(), whole)


def test_a_click_and_a_tone_are_where_they_belong(ax):
    samples = sinusoid(1000, 0.5)
    image = plot_spectrogram(ax, samples, SAMPLE_RATE)
    np.testing.assert_allclose(image.get_array().max(), 20 * np.log10(0.5), atol=0.1)
    np.testing.assert_allclose(brightest(image)[1], 1.0, atol=0.01)
    click = np.zeros(SAMPLE_RATE, "float32")
    click[6000] = 1.0
    np.testing.assert_allclose(brightest(plot_spectrogram(ax, click, SAMPLE_RATE))[0], 0.75, atol=0.009)


def test_axes_are_in_seconds_and_kilohertz(ax):
    plot_spectrogram(ax, sinusoid(1000, 1, seconds=2.5), SAMPLE_RATE)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "frequency (kHz)")
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 2.5), (0, 4))


def test_a_large_spectrogram_is_pooled_and_keeps_its_place_and_peak(ax):
    samples = np.zeros(20 * SAMPLE_RATE)
    samples[9 * SAMPLE_RATE : 10 * SAMPLE_RATE] = sinusoid(3000, 1)
    image = plot_spectrogram(ax, samples, SAMPLE_RATE, window=0.25, hop=0.016)
    columns, rows = 626, 501  # of 1251 frames and 1001 frequencies
    assert image.get_array().shape == (rows, columns)
    np.testing.assert_allclose(image.get_array().max(), 0, atol=0.1)
    time, frequency = brightest(image)
    assert 9 < time < 10
    np.testing.assert_allclose(frequency, 3, atol=0.01)


def test_levels_are_relative_to_the_given_peak(ax):
    image = plot_spectrogram(ax, sinusoid(1000, 0.01), SAMPLE_RATE, peak_level=-10.0)
    assert image.get_clim() == (-70, -10)
    np.testing.assert_allclose(image.get_array().max(), -40, atol=0.1)


@pytest.mark.parametrize("peak_level", [None, -20.0])
def test_silence_is_drawn_at_the_bottom(ax, peak_level):
    image = plot_spectrogram(ax, np.zeros(SAMPLE_RATE, "float32"), SAMPLE_RATE, peak_level=peak_level)
    np.testing.assert_allclose(image.get_array(), image.get_clim()[0])
    ax.figure.draw_without_rendering()


def test_very_quiet_float32_samples_have_a_spectrogram(ax):
    image = plot_spectrogram(ax, sinusoid(1000, 1e-30).astype("float32"), SAMPLE_RATE)
    np.testing.assert_allclose(image.get_array().max(), -600, atol=0.1)


def test_too_short_samples_are_refused(ax):
    with pytest.raises(InputError, match="samples has 511 samples; at least one window of 512"):
        plot_spectrogram(ax, np.ones(511), SAMPLE_RATE)


def test_a_mask_is_drawn_in_its_colour(ax):
    mask = np.random.default_rng(0).uniform(size=(11, 5)).astype("float32")
    image = plot_mask(ax, mask, SAMPLE_RATE, color="#0072B2", hop=0.1)
    np.testing.assert_array_equal(image.get_array(), mask.T)
    assert image.to_rgba(0.0) == to_rgba("white")
    np.testing.assert_allclose(image.to_rgba(1.0), to_rgba("#0072B2"))
    assert ax.get_xlim() == pytest.approx((0, 1))
    assert ax.get_ylim() == (0, 4)
    # Each cell lies around its frame and frequency.
    np.testing.assert_allclose(image.get_extent(), [-0.05, 1.05, -0.5, 4.5])


def test_a_large_mask_is_averaged_and_keeps_its_place(ax):
    mask = np.zeros((2001, 1201))
    mask[600:602, 300] = 1.0
    image = plot_mask(ax, mask, SAMPLE_RATE, hop=0.01)
    assert image.get_array().shape == (401, 667)
    np.testing.assert_allclose(image.get_array().max(), 2 / 9)
    np.testing.assert_allclose(brightest(image), [6.01, 4 * 301 / 1200])


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (5, 1)])
def test_a_mask_without_extent_is_refused(ax, shape):
    with pytest.raises(InputError, match="mask must have at least 2 frames and 2 frequencies"):
        plot_mask(ax, np.ones(shape), SAMPLE_RATE, hop=0.016)
