"""Figures of a separation, and the parts that they are made of.

They use matplotlib without its global state: no window opens, and nothing of a user's own figures changes. matplotlib
is imported when the first figure is drawn. Its figures are saved by `figure.savefig(path)`.
"""

from vbss.plots.binaural import plot_binaural as plot_binaural
from vbss.plots.convergence import plot_elbo as plot_elbo
from vbss.plots.directions import plot_directions as plot_directions
from vbss.plots.enhancement import plot_enhancement as plot_enhancement
from vbss.plots.long import plot_long_separation as plot_long_separation
from vbss.plots.neural import plot_neural_separation as plot_neural_separation
from vbss.plots.positions import plot_delays as plot_delays
from vbss.plots.positions import plot_positions as plot_positions
from vbss.plots.report import plot_localization as plot_localization
from vbss.plots.report import plot_separation as plot_separation
from vbss.plots.spectrogram import plot_mask as plot_mask
from vbss.plots.spectrogram import plot_spectrogram as plot_spectrogram
from vbss.plots.training import plot_training as plot_training
