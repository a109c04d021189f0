"""Pipelines as values: what they refuse, and what named ones are made of."""

import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest

import vbss
from vbss.audio import apply_masks, multichannel_wiener
from vbss.errors import InputError
from vbss.models import CACGMM, LDACGMM, FastMNMF, LocalGaussianNMF
from vbss.pipeline import Analysis


@pytest.fixture
def unchecked():
    """Without the annotations, which are checked in tests only."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vbss.Pipeline(output="wiener"), "output must be a vbss.SumModel"),
        (lambda: vbss.Pipeline(output=vbss.SumModel), "output must be a vbss.SumModel"),
        (
            lambda: vbss.Pipeline(mixture_model="cgmm"),
            "mixture_model must be a class, that of a vbss.models.LDACGMM or CACGMM",
        ),
        (lambda: vbss.Pipeline(start_window="a"), "start_window must be a positive number, got 'a'"),
        (lambda: vbss.Pipeline(start_window=0.0), "start_window"),
        (lambda: vbss.Pipeline(has_noise="auto"), "has_noise must be True, False or None, got 'auto'"),
        (lambda: vbss.SumModel(num_components=0), "num_components"),
        (lambda: vbss.SumModel(max_steps=0), "max_steps"),
        (lambda: vbss.SumModel(loading=-1.0), "loading must be a positive number, got -1.0"),
        (lambda: vbss.SumModel(loading=float("nan")), "loading"),
        (lambda: vbss.SumModel(model=LDACGMM), "model must be a class, that of a vbss.models.LocalGaussianNMF"),
        (lambda: vbss.SumModel(algorithm="em"), "algorithm must be a vbss.EM, got 'em'"),
    ],
)
def test_parts_that_cannot_be_are_refused_when_made(unchecked, make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_named_pipelines():
    algorithm = vbss.EM(updates="derived", tolerance=1e-3)
    settings = vbss.Settings(num_components=3, max_sum_steps=5, loading=1e-3, algorithm=algorithm)
    output = settings.pipeline.output
    assert output == vbss.SumModel(num_components=3, max_steps=5, loading=1e-3, algorithm=algorithm)
    assert settings.pipeline.mixture_model is LDACGMM
    assert vbss.Settings(model="cgmm").pipeline == vbss.Pipeline(output=vbss.Wiener())
    assert vbss.Settings(model="cacgmm").pipeline == vbss.Pipeline(CACGMM, vbss.Wiener())
    fast = vbss.Settings(model="cacgmm+fastmnmf", num_components=3).pipeline
    assert fast == vbss.Pipeline(CACGMM, vbss.SumModel(num_components=3, model=FastMNMF))
    assert vbss.Settings().of_array(True).model == "cgmm+nmf"
    assert vbss.Settings().of_array(False).pipeline == vbss.Pipeline(CACGMM, vbss.Settings().pipeline.output)
    with pytest.raises(InputError, match="microphone_positions must be given for 'cgmm'"):
        vbss.Settings(model="cgmm").of_array(False)
    own = vbss.Pipeline(output=vbss.Masking())
    assert vbss.Settings(model=own).pipeline is own


@pytest.fixture(scope="module")
def analysis():
    """Two sources that take turns, each with a direction of its own; whitening that changes every microphone."""
    keys = jr.split(jr.key(0), 4)
    is_first = (jnp.arange(40) // 5 % 2)[:, None].astype(float)
    turns = jnp.stack([is_first, 1 - is_first])
    signals = jr.normal(keys[0], (2, 40, 9), complex) * turns.astype(complex)
    steering = jnp.exp(2j * np.pi * jr.uniform(keys[1], (2, 9, 3)).astype(complex))
    images = signals[..., None] * steering[:, None]
    mixture = images.sum(0) + 1e-3 * jr.normal(keys[2], (40, 9, 3), complex)
    root = jnp.eye(3)[None] + 0.2 * jr.normal(keys[3], (9, 3, 3))
    masks = jnp.broadcast_to(jnp.moveaxis(turns, 0, -1), (40, 9, 2)) * 0.8 + 0.1
    return Analysis(mixture, root + jnp.swapaxes(root, 1, 2), (1, 2)), masks, images


def test_filters_of_masks_are_those_of_the_front_end(analysis):
    analysis, masks, _ = analysis
    for output, expected in ((vbss.Masking(), apply_masks), (vbss.Wiener(), multichannel_wiener)):
        sounds = output(analysis, masks, key=jax.random.key(0))
        assert sounds.solution is None
        for place, microphone in enumerate(analysis.microphones):
            spectrograms = expected(analysis.mixture, masks, microphone)
            np.testing.assert_allclose(sounds.spectrograms[:, place], spectrograms, atol=1e-12)


def test_what_masks_leave_is_filtered_out_as_noise(analysis):
    analysis, masks, _ = analysis
    all_classes = jnp.concatenate([0.9 * masks, jnp.full_like(masks[..., :1], 0.1)], -1)
    found = vbss.Wiener()(analysis, all_classes[..., :2], key=jax.random.key(0)).spectrograms
    expected = multichannel_wiener(analysis.mixture, all_classes, analysis.microphones[0])[:2]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize(("model", "level"), [(LocalGaussianNMF, 1.0), (LocalGaussianNMF, 1e-12), (FastMNMF, 1.0)])
def test_the_sum_model_gives_the_images_at_the_wanted_microphones(analysis, model, level):
    analysis, masks, images = analysis
    sounds = vbss.SumModel(2, 30, model=model)(
        analysis._replace(mixture=level * analysis.mixture), masks, key=jax.random.key(0)
    )
    assert sounds.solution is not None and sounds.solution.num_steps == 30
    truth = np.moveaxis(np.asarray(images)[..., analysis.microphones], -1, 1)
    error = np.abs(np.asarray(sounds.spectrograms) / level - truth)
    assert (error**2).sum() < 1e-2 * (np.abs(truth) ** 2).sum()
    assert np.all((30 < np.asarray(sounds.expected_sdr)) & (np.asarray(sounds.expected_sdr) < 60))
