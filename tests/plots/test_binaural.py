from io import BytesIO

import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import InterauralCues, Recording
from vbss.binaural import BinauralLocalization, BinauralSeparation, BinauralSettings
from vbss.errors import InputError
from vbss.models.affine_pieces import PiecewisePosterior
from vbss.plots import plot_binaural

SAMPLE_RATE, NUM_SAMPLES = 8000, 4000
CUES = InterauralCues(SAMPLE_RATE, window=0.032, hop=0.008)


class KnownLocalization(BinauralLocalization):
    """One of given arrays, without an inference."""

    def __init__(self, **fields):
        for name, value in fields.items():
            object.__setattr__(self, name, value)


class KnownSeparation(KnownLocalization, BinauralSeparation):
    pass


def known(num_sources, cls=KnownSeparation, has_positions=True, size=2):
    """A recording of noises of decreasing level, and what was found in it."""
    rng = np.random.default_rng(num_sources)
    images = 0.1 ** np.arange(1, num_sources + 1)[:, None, None] * rng.standard_normal((num_sources, 2, NUM_SAMPLES))
    images = images.astype(np.float32)
    means = jnp.asarray(np.radians(20.0 * np.arange(num_sources * size).reshape(num_sources, 1, size)))
    precisions = jnp.broadcast_to(400 * jnp.eye(size), (num_sources, 1, size, size))
    delays = np.linspace(-8e-4, 8e-4, 9)
    result = cls(
        masks=rng.dirichlet(np.ones(num_sources), (NUM_SAMPLES // 64 + 1, 128)),
        cues=CUES,
        settings=BinauralSettings(),
        positions=PiecewisePosterior(jnp.zeros((num_sources, 1)), means, precisions) if has_positions else None,
        delay_grid=None if has_positions else delays,
        delay_probs=None if has_positions else np.eye(9)[:num_sources],
        images=images,
        sample_rate=SAMPLE_RATE,
    )
    return Recording(images.sum(0), SAMPLE_RATE), result


@pytest.mark.parametrize("num_sources", [1, 4])
@pytest.mark.parametrize(("has_positions", "size"), [(True, 2), (True, 1), (False, 2)])
def test_a_row_for_the_mixture_and_one_for_each_source(num_sources, has_positions, size):
    recording, separation = known(num_sources, has_positions=has_positions, size=size)
    figure = plot_binaural(recording, separation)
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == 2 * (1 + num_sources)
    mixture, positions, *rest = panels
    assert mixture.get_title("left") == "mixture at the left ear"
    assert positions.get_title("left") == f"posterior of the {'positions' if has_positions else 'delays'}"
    assert len(positions.get_legend().get_texts()) == num_sources
    peak = mixture.images[0].get_clim()[1]
    for source in range(num_sources):
        sound, mask = rest[2 * source : 2 * source + 2]
        assert sound.get_title("left") == f"source {source + 1} at the left ear"
        assert mask.get_title("left") == f"mask of source {source + 1}"
        assert sound.images[0].get_clim() == (peak - 60, peak)
        drawn = mask.images[0].get_array()
        assert not drawn[0].any()  # 0 Hz
        np.testing.assert_allclose(drawn[1:], separation.masks[..., source].T)
    width, height = figure.get_size_inches()
    assert width == pytest.approx(11.69) and height == pytest.approx(max(8.27, 2.4 * (1 + num_sources)))
    image = BytesIO()
    figure.savefig(image)
    assert image.getvalue().startswith(b"\x89PNG")


def test_of_a_localisation_there_are_masks_alone():
    recording, localization = known(2, KnownLocalization)
    figure = plot_binaural(recording, localization)
    titles = [ax.get_title("left") for ax in figure.axes if ax.axison]
    assert [title for title in titles if title] == [
        "mixture at the left ear",
        "posterior of the positions",
        "mask of source 1",
        "mask of source 2",
    ]


def test_a_silent_source_is_drawn_without_a_warning():
    recording, separation = known(2)
    separation.images[1] = 0
    plot_binaural(recording, separation).savefig(BytesIO())


def test_another_recording_is_refused():
    recording, separation = known(2)
    longer = Recording(np.pad(recording.samples, ((0, 0), (0, 5))), SAMPLE_RATE)
    with pytest.raises(InputError, match=r"recording has shape \(2, 4005\), but what was separated has \(2, 4000\)"):
        plot_binaural(longer, separation)
