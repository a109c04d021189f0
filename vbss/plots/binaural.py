"""One figure for a binaural result: the mixture, where its sources are, and each source with its mask."""

from typing import TYPE_CHECKING

import numpy as np

from vbss.audio.files import Recording
from vbss.errors import InputError
from vbss.plots.colors import source_color
from vbss.plots.positions import plot_delays, plot_positions
from vbss.plots.spectrogram import plot_mask, plot_spectrogram

if TYPE_CHECKING:
    import matplotlib.figure

    import vbss.binaural

_PAGE, _DPI = (11.69, 8.27), 120  # inches: landscape A4
_ROW = 2.4  # inches, of more rows than a page holds


def plot_binaural(
    recording: Recording,
    result: "vbss.binaural.BinauralLocalization",
) -> "matplotlib.figure.Figure":
    """The mixture, the posteriors of positions (or delays), and each source with its mask, on a landscape A4 page.

    Of a localisation there are masks alone. All spectrograms are of the left ear and share one scale of 60 dB, whose
    upper end is the mixture's peak.

    Args:
        recording: what was separated.
        result: what `vbss.separate_binaural` or `vbss.localize_binaural` found in it.

    Raises:
        InputError: if recording is not that of the result.
    """
    from matplotlib.figure import Figure

    from vbss.binaural import BinauralSeparation

    images = result.images if isinstance(result, BinauralSeparation) else None
    if images is not None and images.shape[1:] != recording.samples.shape:
        raise InputError(
            f"recording has shape {recording.samples.shape}, but what was separated has {images.shape[1:]}."
        )
    num_sources, cues = result.masks.shape[-1], result.cues
    height = max(_PAGE[1], _ROW * (1 + num_sources))
    figure = Figure(figsize=(_PAGE[0], height), dpi=_DPI, layout="constrained")
    rows = figure.subplots(1 + num_sources, 2)
    transform = {"window": cues.window, "hop": cues.hop}
    image = plot_spectrogram(rows[0, 0], recording.samples[0], recording.sample_rate, **transform)
    rows[0, 0].set_title("mixture at the left ear", loc="left")
    figure.colorbar(image, ax=rows[0, 0], label="level (dB)")
    if result.positions is not None:
        plot_positions(rows[0, 1], result.positions)
        rows[0, 1].set_title("posterior of the positions", loc="left")
    elif result.delay_grid is not None and result.delay_probs is not None:
        plot_delays(rows[0, 1], result.delay_grid, result.delay_probs)
        rows[0, 1].set_title("posterior of the delays", loc="left")
    rows[0, 1].legend(loc="upper right", frameon=False, fontsize="small")
    for source, (left, right) in enumerate(rows[1:]):
        color = source_color(source)
        mask = np.pad(result.masks[..., source], ((0, 0), (1, 0)))  # there is none at 0 Hz
        plot_mask(right, mask, cues.sample_rate, color=color, hop=cues.hop)
        right.set_title(f"mask of source {source + 1}", loc="left", color=color)
        if images is None:
            left.set_axis_off()
            continue
        peak_level = image.get_clim()[1]
        plot_spectrogram(left, images[source, 0], recording.sample_rate, peak_level=peak_level, **transform)
        left.set_title(f"source {source + 1} at the left ear", loc="left", color=color)
    return figure
