"""Images over time and frequency: spectrograms and masks."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vbss.audio.stft import STFT
from vbss.errors import InputError
from vbss.plots.pooling import max_pool, mean_pool, tile_shape

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.image

_DYNAMIC_RANGE = 60.0  # dB
_CHUNK = 2**20  # samples in the overlapping frames that are transformed at a time


def plot_spectrogram(
    ax: "matplotlib.axes.Axes",
    samples: Float[np.ndarray, " samples"],
    sample_rate: int | np.integer,
    *,
    peak_level: float | None = None,
    window: float = 0.064,
    hop: float = 0.016,
) -> "matplotlib.image.AxesImage":
    """Draw the spectrogram of a signal, 60 dB deep, over time in s and frequency in kHz.

    A large one is drawn as the largest values in at most 1000 by 600 tiles.

    Args:
        ax: where to draw.
        samples: float32 or float64; they may be silent.
        sample_rate: Hz.
        peak_level: dB that are drawn brightest, where 0 dB is a sinusoid of amplitude 1; default: the signal's own
            peak. Give the upper end of another image's `get_clim()` to make the two comparable.
        window: length of the Hann window, s.
        hop: from one window to the next, s.

    Returns:
        The image, of levels in dB.

    Raises:
        InputError: if the samples are shorter than one window, or as `vbss.audio.STFT.init`.
    """
    stft = STFT.init(sample_rate, window, hop)
    if len(samples) < stft.window_length:
        raise InputError(f"samples has {len(samples)} samples; at least one window of {stft.window_length} is needed.")
    num_frames, num_frequencies = _shape(stft, len(samples))
    tile = tile_shape(num_frames, num_frequencies)
    powers = _pooled_powers(samples, stft, num_frames, tile)
    if peak_level is None:
        peak_level = 10 * float(np.log10(powers.max())) if powers.any() else 0.0
    floor = peak_level - _DYNAMIC_RANGE
    levels = 10 * np.log10(np.maximum(powers, 10 ** (floor / 10)))

    image = _draw(ax, levels, tile, stft.hop_length / sample_rate, sample_rate / stft.window_length)
    image.set(cmap="magma", clim=(floor, peak_level))
    ax.set(xlim=(0, len(samples) / sample_rate), ylim=(0, sample_rate / 2000))
    return image


def plot_mask(
    ax: "matplotlib.axes.Axes",
    mask: Float[np.ndarray, "frames frequencies"],
    sample_rate: int | np.integer,
    *,
    color: str = "black",
    hop: float,
) -> "matplotlib.image.AxesImage":
    """Draw the mask of one source, from white for 0 to `color` for 1, over time in s and frequency in kHz.

    A large one is drawn as the means in at most 1000 by 600 tiles.

    Args:
        ax: where to draw.
        mask: the probability that the source owns a bin, at frequencies from 0 to half the sample rate.
        sample_rate: Hz.
        color: any colour of matplotlib.
        hop: from one frame to the next, s.

    Returns:
        The image, of probabilities.

    Raises:
        InputError: if the mask has fewer than two frames or frequencies.
    """
    from matplotlib.colors import LinearSegmentedColormap

    num_frames, num_frequencies = mask.shape
    if min(mask.shape) < 2:
        raise InputError(f"mask must have at least 2 frames and 2 frequencies, got shape {mask.shape}.")
    tile = tile_shape(num_frames, num_frequencies)
    image = _draw(ax, mean_pool(mask, tile), tile, hop, sample_rate / 2 / (num_frequencies - 1))
    image.set(cmap=LinearSegmentedColormap.from_list("mask", ["white", color]), clim=(0, 1))
    ax.set(xlim=(0, (num_frames - 1) * hop), ylim=(0, sample_rate / 2000))
    return image


def _shape(stft: STFT, num_samples: int) -> tuple[int, int]:
    """How many frames and frequencies `stft.forward` makes of a signal."""
    num_frames = -(-(num_samples - stft.window_length % 2) // stft.hop_length) + 1
    return num_frames, stft.window_length // 2 + 1


def _pooled_powers(
    samples: Float[np.ndarray, " samples"], stft: STFT, num_frames: int, tile: tuple[int, int]
) -> Float[np.ndarray, "columns rows"]:
    """The largest powers in tiles of the frames of `stft.forward`, where a sinusoid of amplitude 1 has power 1.

    Not by `stft` itself, whose compilation would take longer than everything else, and not all at once: a long
    recording's spectrogram would need as much memory as its separation.
    """
    length, hop = stft.window_length, stft.hop_length
    before = length // 2
    after = (num_frames - 1) * hop + length - before - len(samples)
    padded = np.pad(samples, (before, max(after, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop][:num_frames]
    hann = np.square(np.sin(np.pi * np.arange(length) / length))
    hann *= 2 / hann.sum()
    step = tile[0] * max(1, _CHUNK // (tile[0] * length))
    chunks = (np.fft.rfft(hann * frames[start : start + step]) for start in range(0, num_frames, step))
    return np.concatenate([max_pool(np.square(chunk.real) + np.square(chunk.imag), tile) for chunk in chunks])


def _draw(
    ax: "matplotlib.axes.Axes",
    values: Float[np.ndarray, "columns rows"],
    tile: tuple[int, int],
    hop: float,
    spacing: float,
) -> "matplotlib.image.AxesImage":
    """Draw tiles of frames `hop` s and frequencies `spacing` Hz apart, each around the middle of its first bins."""
    width, height = tile[0] * hop, tile[1] * spacing / 1000
    left, bottom = -hop / 2, -spacing / 2000
    extent = (left, left + len(values) * width, bottom, bottom + values.shape[1] * height)
    image = ax.imshow(values.T, origin="lower", aspect="auto", extent=extent)
    ax.set(xlabel="time (s)", ylabel="frequency (kHz)")
    ax.locator_params(axis="y", nbins=5)
    return image
