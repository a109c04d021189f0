import subprocess
import sys
from io import BytesIO
from textwrap import dedent

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from vbss.errors import InputError
from vbss.plots import plot_localization, plot_separation
from vbss.plots.colors import source_color


def panels(figure):
    """The axes that show images over time, and the others: scale and directions."""
    over_time = [ax for ax in figure.axes if ax.get_ylim() == (0, 4)]
    return over_time, [ax for ax in figure.axes if ax not in over_time]


@pytest.mark.parametrize("num_sources", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_panel_for_the_mixture_and_two_for_each_source(known_separation, num_sources, dtype):
    recording, separation = known_separation(num_sources, dtype=dtype)
    figure = plot_separation(recording, separation)
    over_time, (scale, directions) = panels(figure)
    assert len(over_time) == 1 + 2 * num_sources
    assert scale.get_ylabel() == "level (dB re amplitude 1)"
    assert directions.name == "polar"
    assert len(directions.patches) == num_sources
    assert len(directions.get_legend().get_texts()) == num_sources
    assert figure.get_size_inches() == pytest.approx((11.69, 8.27))
    assert figure.dpi == 120


def test_what_the_panels_show(known_separation):
    recording, separation = known_separation(2)
    object.__setattr__(separation, "reference_microphone", 1)
    mixture, *rest = panels(plot_separation(recording, separation))[0]
    assert mixture.get_title("left") == "mixture at microphone 1"
    (drawn,) = mixture.images
    peak = drawn.get_clim()[1]
    np.testing.assert_allclose(drawn.get_array().max(), peak)
    for source in range(2):
        sound, mask = rest[2 * source : 2 * source + 2]
        assert sound.get_title("left") == f"source {source + 1}, 50 % of the energy"
        assert mask.get_title("left") == f"mask of source {source + 1} (mixture model)"
        # One scale for all, and the second source is 20 dB below the first.
        assert sound.images[0].get_clim() == (peak - 60, peak)
        np.testing.assert_array_equal(mask.images[0].get_array(), separation.masks[..., source].T)
        np.testing.assert_allclose(mask.images[0].to_rgba(1.0), to_rgba(source_color(source)))
    means = [rest[index].images[0].get_array().mean() for index in (0, 2)]
    np.testing.assert_allclose(means[0] - means[1], 20, atol=1)


def test_all_panels_share_one_time_axis(known_separation):
    recording, separation = known_separation(3, num_samples=8100)
    figure = plot_separation(recording, separation)
    over_time, _ = panels(figure)
    assert {ax.get_xlim() for ax in over_time} == {(0, 8100 / 8000)}
    assert [ax.get_xlabel() for ax in over_time] == [""] * 5 + ["time (s)"] * 2
    over_time[0].set_xlim(0.2, 0.4)
    assert over_time[-1].get_xlim() == (0.2, 0.4)


@pytest.mark.parametrize("num_sources", [1, 4, 6])
def test_panels_lie_on_the_page_and_apart(known_separation, num_sources):
    figure = plot_separation(*known_separation(num_sources))
    boxes = [ax.get_position() for ax in figure.axes]
    for index, box in enumerate(boxes):
        assert 0 < box.x0 < box.x1 < 1
        assert 0 < box.y0 < box.y1 < 1
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert (box.y1 - box.y0) * figure.get_figheight() >= 0.9 - 1e-9
    labelled = figure.get_tightbbox()
    assert 0 < labelled.x0 < labelled.x1 < figure.get_figwidth()
    assert 0 < labelled.y0 < labelled.y1 < figure.get_figheight()


def test_silent_sources_are_drawn_without_a_warning(known_separation):
    recording, separation = known_separation(2)
    separation.sources[1] = 0.0
    image = BytesIO()
    plot_separation(recording, separation).savefig(image)
    assert image.getvalue().startswith(b"\x89PNG")


def test_localization_shows_mixture_and_directions(known_separation):
    recording, localization = known_separation(2)
    over_time, (_, directions) = panels(plot_localization(recording, localization))
    assert len(over_time) == 1
    assert over_time[0].get_xlabel() == "time (s)"
    assert len(directions.patches) == 2


def test_another_recording_than_that_of_the_separation_is_refused(known_separation):
    recording, _ = known_separation(2, num_samples=9000)
    _, separation = known_separation(2)
    with pytest.raises(InputError, match="recording has 9000 samples at 8000 Hz, but what was separated has 8000"):
        plot_separation(recording, separation)


def test_matplotlib_is_imported_when_it_is_needed_and_without_its_global_state():
    program = """
        import sys
        import numpy as np
        import vbss.plots
        assert "matplotlib" not in sys.modules
        from matplotlib.figure import Figure
        vbss.plots.plot_spectrogram(Figure().add_subplot(), np.ones(8000), 8000)
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", dedent(program)], check=True)
