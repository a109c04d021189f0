import numpy as np
from matplotlib.figure import Figure

from vbss.plots import plot_elbo


def test_the_bound_is_drawn_over_whole_steps():
    ax = Figure().add_subplot()
    elbo = np.array([-5.0, -2.0, -1.0, -0.9])
    line = plot_elbo(ax, elbo)
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([np.arange(4), elbo]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "ELBO (nats)")
    ticks = ax.get_xticks()
    np.testing.assert_array_equal(ticks, ticks.round())
