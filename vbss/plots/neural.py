"""One figure for what a network separated: the mixture, and each source with its mask."""

from typing import TYPE_CHECKING

from vbss.audio.files import Recording
from vbss.errors import InputError
from vbss.plots.colors import source_color
from vbss.plots.spectrogram import plot_mask, plot_spectrogram

if TYPE_CHECKING:
    import matplotlib.figure

    import vbss.neural

_PAGE, _DPI = (11.69, 8.27), 120  # inches: landscape A4
_ROW = 2.4  # inches, of more rows than a page holds


def plot_neural_separation(
    recording: Recording, separation: "vbss.neural.NeuralSeparation"
) -> "matplotlib.figure.Figure":
    """The mixture, and below it each source beside its mask; all spectrograms share one scale of 60 dB.

    Args:
        recording: what was separated.
        separation: what `vbss.separate_neural` found in it.

    Raises:
        InputError: if recording is not that of the separation.
    """
    from matplotlib.figure import Figure

    if recording.samples.shape != (1, separation.sources.shape[1]):
        raise InputError(
            f"recording has shape {recording.samples.shape}, but what was separated has "
            f"{(1, separation.sources.shape[1])}."
        )
    stft = separation.stft
    hop = stft.hop_length / stft.sample_rate
    transform = {"window": stft.window_length / stft.sample_rate, "hop": hop}
    num_sources = len(separation.sources)
    figure = Figure(figsize=(_PAGE[0], max(_PAGE[1], _ROW * (1 + num_sources))), dpi=_DPI, layout="constrained")
    rows = figure.subplots(1 + num_sources, 2)
    image = plot_spectrogram(rows[0, 0], recording.samples[0], recording.sample_rate, **transform)
    rows[0, 0].set_title("mixture", loc="left")
    figure.colorbar(image, ax=rows[0, 0], label="level (dB)")
    rows[0, 1].set_axis_off()
    for source, (left, right) in enumerate(rows[1:]):
        color, peak_level = source_color(source), image.get_clim()[1]
        samples = separation.sources[source]
        plot_spectrogram(left, samples, recording.sample_rate, peak_level=peak_level, **transform)
        left.set_title(f"source {source + 1}", loc="left", color=color)
        plot_mask(right, separation.masks[..., source], stft.sample_rate, color=color, hop=hop)
        right.set_title(f"mask of source {source + 1}", loc="left", color=color)
    return figure
