"""One figure for a whole result: the mixture, its sources with their masks, and where they are."""

from typing import TYPE_CHECKING

from vbss.audio.files import Recording
from vbss.errors import InputError
from vbss.plots.colors import source_color
from vbss.plots.directions import plot_directions
from vbss.plots.spectrogram import plot_mask, plot_spectrogram

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.image

    import vbss.separation

_DPI = 120
_FONT_SIZE = 9
# Inches. The page is a landscape A4 one, longer if its rows would be too low.
_PAGE = (11.69, 8.27)
_LEFT, _PANEL_WIDTH, _SECOND_LEFT = 0.6, 5.0, 6.5
_TOP, _FIRST_HEIGHT, _GAP, _MIN_HEIGHT, _BOTTOM = 0.35, 2.5, 0.3, 0.9, 0.5


def plot_separation(
    recording: Recording,
    separation: "vbss.separation.Separation",
) -> "matplotlib.figure.Figure":
    """The mixture, the posteriors of the directions, and each source with its mask, on a landscape A4 page.

    Without directions, where the microphones' positions are not known. All spectrograms share one scale of 60 dB, whose
    upper end is the mixture's peak. A mask is white where the source is absent and has the source's colour where it is
    alone. With more than four sources the page is longer.

    Args:
        recording: what was separated.
        separation: what `vbss.separate` found in it.

    Raises:
        InputError: if recording is not that of the separation.
    """
    num_sources, num_samples = separation.sources.shape
    if (num_samples, separation.sample_rate) != (recording.samples.shape[1], recording.sample_rate):
        raise InputError(
            f"recording has {recording.samples.shape[1]} samples at {recording.sample_rate} Hz, but what was "
            f"separated has {num_samples} at {separation.sample_rate} Hz."
        )

    height = max((_PAGE[1] - _TOP - _FIRST_HEIGHT - _BOTTOM) / num_sources - _GAP, _MIN_HEIGHT)
    page_height = _TOP + _FIRST_HEIGHT + num_sources * (_GAP + height) + _BOTTOM
    figure = _figure(page_height)
    mixture, image = _draw_overview(figure, recording, separation)
    panels = [mixture]
    for source in range(num_sources):
        top = _TOP + _FIRST_HEIGHT + _GAP + source * (_GAP + height)
        left, right = (
            figure.add_axes(_box(page_height, edge, top, _PANEL_WIDTH, height), sharex=mixture, sharey=mixture)
            for edge in (_LEFT, _SECOND_LEFT)
        )
        color, rate, settings = source_color(source), separation.sample_rate, separation.settings
        sound, peak_level = separation.sources[source], image.get_clim()[1]
        plot_spectrogram(left, sound, rate, peak_level=peak_level, window=settings.window, hop=settings.hop)
        plot_mask(right, separation.masks[..., source], rate, color=color, hop=settings.hop)
        share = f"{100 * separation.energy_shares[source]:.0f} % of the energy"
        if separation.expected_sdr is not None:
            share += f", expected SDR {separation.expected_sdr[source]:.0f} dB"
        _finish(left, f"source {source + 1}, {share}", color)
        _finish(right, f"mask of source {source + 1} (mixture model)", color)
        right.set_ylabel("")
        panels += [left, right]
    for ax in panels[:-2]:
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    mixture.set_xlim(0, num_samples / recording.sample_rate)  # which the frames of a mask may exceed
    return figure


def plot_localization(
    recording: Recording,
    localization: "vbss.separation.Localization",
) -> "matplotlib.figure.Figure":
    """The mixture and the posteriors of the directions, side by side.

    Args:
        recording: in which sources were localization.
        localization: what `vbss.localize` or `vbss.separate` found in it.

    Raises:
        InputError: as `plot_spectrogram`.
    """
    figure = _figure(_TOP + _FIRST_HEIGHT + _BOTTOM)
    _draw_overview(figure, recording, localization)
    return figure


def _figure(height: float) -> "matplotlib.figure.Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(_PAGE[0], height), dpi=_DPI)


def _draw_overview(
    figure: "matplotlib.figure.Figure",
    recording: Recording,
    localization: "vbss.separation.Localization",
) -> "tuple[matplotlib.axes.Axes, matplotlib.image.AxesImage]":
    """The first row: mixture with its scale, and directions if known. Returns the mixture's axes and image."""
    reference_microphone = localization.reference_microphone
    page_height = figure.get_figheight()
    mixture = figure.add_axes(_box(page_height, _LEFT, _TOP, _PANEL_WIDTH, _FIRST_HEIGHT))
    samples, settings = recording.samples[reference_microphone], localization.settings
    image = plot_spectrogram(mixture, samples, recording.sample_rate, window=settings.window, hop=settings.hop)
    _finish(mixture, f"mixture at microphone {reference_microphone}")
    scale = figure.add_axes(_box(page_height, _LEFT + _PANEL_WIDTH + 0.1, _TOP, 0.1, _FIRST_HEIGHT))
    figure.colorbar(image, cax=scale)
    _finish(scale)
    scale.set_ylabel("level (dB re amplitude 1)", fontsize=_FONT_SIZE)

    if localization.azimuths is None or localization.direction_posterior is None:
        return mixture, image
    side = _FIRST_HEIGHT - 0.4  # and room for the labels
    directions = figure.add_axes(_box(page_height, _SECOND_LEFT + 0.4, _TOP, side, side), projection="polar")
    plot_directions(directions, localization.azimuths, localization.direction_posterior)
    _finish(directions)
    directions.legend(loc="center left", bbox_to_anchor=(1.2, 0.5), handlelength=1, frameon=False, fontsize=_FONT_SIZE)
    return mixture, image


def _box(page_height: float, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height as fractions of the page, from inches from its left and top."""
    return left / _PAGE[0], 1 - (top + height) / page_height, width / _PAGE[0], height / page_height


def _finish(ax: "matplotlib.axes.Axes", title: str = "", color: str = "black") -> None:
    ax.set_title(title, loc="left", fontsize=_FONT_SIZE, color=color, pad=3)
    ax.tick_params(labelsize=_FONT_SIZE - 1)
    ax.xaxis.label.set_fontsize(_FONT_SIZE)
    ax.yaxis.label.set_fontsize(_FONT_SIZE)
