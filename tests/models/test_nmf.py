"""Itakura-Saito non-negative matrix factorisation."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from vbss.models.nmf import itakura_saito_nmf


def _power(seed, frequencies=20, signals=2, frames=30, components=3):
    """Powers of circular normals of low-rank variance, and the variances."""
    rng = np.random.default_rng(seed)
    spectra = rng.gamma(0.5, size=(frequencies, signals, components))
    activations = rng.gamma(0.5, size=(signals, components, frames))
    variance = np.einsum("fkb,kbn->fkn", spectra, activations) + 1e-3
    return jnp.asarray(variance * rng.exponential(size=variance.shape)), variance


def _model(spectra, activations):
    return jnp.einsum("fkb,kbn->fkn", spectra, activations)


def _divergence(power, variance):
    ratio = power / variance
    return float((ratio - jnp.log(ratio) - 1).sum())


def test_never_worse_with_more_steps_and_near_the_truth():
    power, variance = _power(0)
    found = [_divergence(power, _model(*itakura_saito_nmf(power, 4, key=jr.key(0), num_steps=n))) for n in range(12)]
    assert np.diff(found).max() < 1e-9 * found[0]
    fitted = _model(*itakura_saito_nmf(power, 4, key=jr.key(0), num_steps=300))
    assert _divergence(power, fitted) < _divergence(power, variance)
    assert np.median(np.abs(np.log(np.asarray(fitted) / variance))) < 1


def test_level_does_not_matter():
    power, _ = _power(1)
    fitted = _model(*itakura_saito_nmf(power, 3, key=jr.key(0)))
    for level in (1e-12, 1e6):
        scaled = _model(*itakura_saito_nmf(level * power, 3, key=jr.key(0)))
        np.testing.assert_allclose(scaled / level, fitted, rtol=1e-6)


def test_bins_that_do_not_count_say_nothing():
    power, _ = _power(2)
    is_observed = jnp.ones((20, 30), bool).at[:, 20:].set(False)
    broken = power.at[:, :, 20:].set(1e6)
    runs = [_model(*itakura_saito_nmf(p, 3, key=jr.key(0), is_observed=is_observed)) for p in (power, broken)]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9)


def test_silence_in_single_precision_stays_finite_and_positive():
    power, _ = _power(3)
    power = power.at[:, 0].set(0).at[3].set(0).at[:, :, 5].set(0).astype(jnp.float32)
    for part in itakura_saito_nmf(power, 3, key=jr.key(0)):
        assert part.dtype == jnp.float32 and bool(jnp.isfinite(part).all()) and float(part.min()) >= 0


def test_start_is_keyed():
    power, _ = _power(4)
    first, again, other = (itakura_saito_nmf(power, 3, key=jr.key(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0
    batched = jax.vmap(lambda key: itakura_saito_nmf(power, 3, key=key)[0])(jnp.stack([jr.key(0), jr.key(1)]))
    np.testing.assert_allclose(batched, jnp.stack([first, other]), rtol=1e-9)
