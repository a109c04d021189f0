import jax.numpy as jnp
import numpy as np
import pytest

from vbss.audio import STFT
from vbss.audio.noise_floor import level_above_floor
from vbss.scenes import demo_scene


def _level(samples, is_observed=None):
    stft = STFT.init(8000, 0.064, 0.016)
    mixture = jnp.moveaxis(stft.forward(jnp.asarray(samples)), 0, -1)
    everything = jnp.any(mixture != 0, -1).T
    return float(level_above_floor(mixture, everything if is_observed is None else everything & is_observed))


@pytest.fixture(scope="module")
def mixture():
    return demo_scene(seconds=3.0).mixture


def test_noise_brings_the_floor_nearer(mixture):
    noise = np.random.default_rng(0).standard_normal(mixture.shape) * mixture.std()
    levels = [_level(mixture + amplitude * noise) for amplitude in (0.0, 10**-1.5, 0.1, 1.0, 10.0)]
    assert np.all(np.diff(levels) < 0)
    assert levels[0] > 18 and levels[-2] < 12
    # Of white noise alone, whose bins' mean power over the microphones has a gamma distribution of shape 4.
    assert abs(levels[-1] - 10 * np.log10(4 / 1.745)) < 1


def test_level_and_bins_that_do_not_count_change_nothing(mixture):
    expected = _level(mixture)
    np.testing.assert_allclose(_level(1e-3 * mixture), expected, rtol=1e-9)
    padded = np.pad(mixture, ((0, 0), (0, 8000)))
    np.testing.assert_allclose(_level(padded), expected, rtol=0.02)  # silence has no power
    kept = jnp.ones((257, 1), bool).at[100:].set(False)
    low = jnp.moveaxis(STFT.init(8000, 0.064, 0.016).forward(jnp.asarray(mixture)), 0, -1)[:, :100]
    assert _level(mixture, kept) == pytest.approx(float(level_above_floor(low, jnp.any(low != 0, -1).T)))
