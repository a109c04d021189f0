import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import apply_masks, multichannel_wiener, normalize_bins
from vbss.errors import InputError

FRAMES, FREQUENCIES, MICROPHONES, SOURCES = 40, 5, 4, 3


def complex_noise(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.fixture
def mixture():
    return jnp.asarray(complex_noise(np.random.default_rng(0), FRAMES, FREQUENCIES, MICROPHONES))


@pytest.fixture
def masks():
    return jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(SOURCES), (FRAMES, FREQUENCIES)))


def test_masks_weigh_the_reference_microphone(mixture, masks):
    sources = apply_masks(mixture, masks, reference_microphone=2)
    for source in range(SOURCES):
        np.testing.assert_array_equal(sources[source], np.asarray(masks)[..., source] * np.asarray(mixture)[..., 2])


@pytest.mark.parametrize("reference", [0, 3])
def test_wiener_is_its_formula(mixture, masks, reference):
    x, m, loading = np.asarray(mixture), np.asarray(masks), 0.1
    sources = multichannel_wiener(mixture, masks, reference, loading)
    for f in range(FREQUENCIES):
        covariances = [(m[:, f, k] * x[:, f].T) @ x[:, f].conj() for k in range(SOURCES)]
        total = sum(covariances)
        total = total + loading * np.trace(total) / MICROPHONES * np.eye(MICROPHONES)
        for k in range(SOURCES):
            weights = np.linalg.inv(total) @ covariances[k][:, reference]
            np.testing.assert_allclose(sources[k, :, f], x[:, f] @ weights.conj(), atol=1e-12)


@pytest.mark.parametrize("reference", [0, 1])
def test_estimates_add_up_to_the_reference_without_loading(mixture, masks, reference):
    sources = multichannel_wiener(mixture, masks, reference, loading=0.0)
    np.testing.assert_allclose(sources.sum(0), mixture[..., reference], atol=1e-12)
    # Whatever the masks add up to.
    sources = multichannel_wiener(mixture, masks[..., :2], reference, loading=0.0)
    np.testing.assert_allclose(sources.sum(0), mixture[..., reference], atol=1e-12)


@pytest.mark.parametrize("reference", [0, 1])
def test_as_many_sources_as_microphones_are_recovered_as_heard_at_the_reference(reference):
    """Masks are one only where a point source is alone: the filter nulls the other exactly, everywhere."""
    rng = np.random.default_rng(2)
    paths = complex_noise(rng, FREQUENCIES, 2, 2)
    signals = complex_noise(rng, 60, FREQUENCIES, 2)
    signals[:20, :, 1] = signals[20:40, :, 0] = 0
    masks = np.zeros((60, FREQUENCIES, 2))
    masks[:20, :, 0] = masks[20:40, :, 1] = 1
    images = np.einsum("tfk,fkm->ktfm", signals, paths)
    sources = multichannel_wiener(jnp.asarray(images.sum(0)), jnp.asarray(masks), reference, loading=1e-14)
    np.testing.assert_allclose(sources, images[..., reference], atol=1e-10)


@pytest.mark.parametrize("num_microphones", [2, 4, 16])
@pytest.mark.parametrize("level", [1e-30, 1e-6, 1.0, 1e15])
def test_degenerate_frequencies_stay_finite_in_single_precision(num_microphones, level):
    rng = np.random.default_rng(3)
    mixture = complex_noise(rng, 300, 4, 1).astype(np.complex64) * np.ones(num_microphones, np.complex64)
    mixture[:, 1] *= np.exp(1e-3j * np.arange(num_microphones))  # nearly coherent, as at low frequencies
    mixture[:, 2] = 0
    mixture[1:, 3] = 0  # one frame only
    mixture = (mixture * level).astype(np.complex64)
    masks = rng.dirichlet(np.ones(2), (300, 4)).astype(np.float32)
    sources = np.asarray(multichannel_wiener(jnp.asarray(mixture), jnp.asarray(masks)))
    assert sources.dtype == np.complex64
    assert np.all(np.isfinite(sources))
    np.testing.assert_array_equal(sources[:, :, 2], 0)
    # What all microphones hear alike is divided among the sources, whatever its level.
    np.testing.assert_allclose(sources.sum(0) / level, mixture[..., 0] / level, atol=1e-3)


def test_silence_and_empty_masks_give_silence(mixture, masks):
    silent = multichannel_wiener(jnp.zeros_like(mixture), masks, loading=0.0)
    np.testing.assert_array_equal(silent, 0)
    np.testing.assert_array_equal(multichannel_wiener(mixture, jnp.zeros_like(masks)), 0)


def test_filters_under_jit_and_vmap(mixture, masks):
    expected = multichannel_wiener(mixture, masks)
    np.testing.assert_allclose(jax.jit(multichannel_wiener)(mixture, masks), expected, atol=1e-12)
    batched = jax.vmap(multichannel_wiener)(jnp.stack([mixture, 2 * mixture]), jnp.stack([masks, masks]))
    np.testing.assert_allclose(batched[1], 2 * expected, atol=1e-12)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_normalized_bins_have_unit_norm_and_the_same_direction(mixture, dtype):
    levels = jnp.asarray([1.0, 1e-30, 1e-3, 1e15, 0.0])
    scaled = (mixture * levels[None, :, None].astype(mixture.dtype)).astype(dtype)
    normalized = np.asarray(normalize_bins(scaled))
    assert normalized.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    direction = np.asarray(mixture) / np.linalg.norm(mixture, axis=-1, keepdims=True)
    np.testing.assert_allclose(normalized[:, :4], direction[:, :4], atol=tolerance)
    np.testing.assert_array_equal(normalized[:, 4], 0)


@pytest.mark.parametrize("function", [apply_masks, multichannel_wiener])
def test_filter_input_that_does_not_fit_is_refused(function, mixture, masks):
    with pytest.raises(InputError, match="reference_microphone must be from 0 to 3"):
        function(mixture, masks, reference_microphone=4)
    with pytest.raises(InputError, match="reference_microphone"):
        function(mixture, masks, reference_microphone=-1)


def test_negative_loading_is_refused(mixture, masks):
    for loading in (-1e-3, float("nan")):
        with pytest.raises(InputError, match="loading"):
            multichannel_wiener(mixture, masks, loading=loading)
