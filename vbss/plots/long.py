"""A long separation at a glance: where the sources were, and how much of them was heard."""

from typing import TYPE_CHECKING

import numpy as np

from vbss.plots.colors import source_color

if TYPE_CHECKING:
    import matplotlib.figure

    import vbss.separation

_PAGE, _DPI = (11.69, 8.27), 120  # inches: landscape A4


def plot_long_separation(separation: "vbss.separation.LongSeparation") -> "matplotlib.figure.Figure":
    """Direction, share of the energy and expected SDR of every source, block by block, on a landscape A4 page.

    A direction is drawn the larger the more of the block's energy the source has.

    Args:
        separation: what `vbss.separate_long` found.
    """
    from matplotlib.figure import Figure

    blocks = separation.blocks
    middles = np.array([(block.start + block.stop) / 2 for block in blocks]) / 60
    shares = np.array([block.energy_shares for block in blocks]).T
    nothing = [None] * len(shares)
    places = np.degrees(np.array([block.directions or nothing for block in blocks], float).T) % 360
    ratios = np.array([block.expected_sdr or nothing for block in blocks], float).T
    figure = Figure(figsize=_PAGE, dpi=_DPI, layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for source, (place, share, ratio) in enumerate(zip(places, shares, ratios, strict=True)):
        color = source_color(source)
        panels[0].scatter(middles, place, 10 + 60 * share, color=color, label=f"source {source + 1}")
        panels[1].plot(middles, 100 * share, marker=".", color=color)
        panels[2].plot(middles, ratio, marker=".", color=color)
    panels[0].set(ylabel="direction (degrees)", ylim=(0, 360), yticks=range(0, 361, 90))
    panels[0].legend(loc="upper right", frameon=False)
    panels[1].set(ylabel="share of the energy (%)", ylim=(0, 100))
    panels[2].set(ylabel="expected SDR (dB)", xlabel="time (minutes)")
    panels[2].set_xlim(0, separation.num_samples / separation.sample_rate / 60)
    return figure
