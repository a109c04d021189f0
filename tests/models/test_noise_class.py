"""A class of noise beside the sources, in each of the mixture models: derivation, starts, and who owns what."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.audio import azimuth_grid, steering_vectors
from vbss.models import CACGMM, LDACGMM, InverseWishartMixture

MODELS = [LDACGMM, InverseWishartMixture, CACGMM]
TRUE_DIRECTIONS = (3, 14)
FRAMES = 60


def _model(kind, steering, has_noise=True):
    return kind.init(2, has_noise=has_noise) if kind is CACGMM else kind.init(steering, 2, has_noise=has_noise)


@pytest.fixture(scope="module")
def steering():
    """A circle of three microphones of 8 cm diameter, 24 directions, 40 bins up to 4 kHz."""
    angle = 2 * np.pi * np.arange(3) / 3
    positions = 0.04 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1)
    return steering_vectors(positions, azimuth_grid(24), jnp.linspace(0.0, 4000.0, 40))


@pytest.fixture(scope="module")
def scene(steering):
    """Two plane waves, each active in whole frames, in white noise: the mixture, and all three energies (F, T, 3)."""
    rng = np.random.default_rng(0)
    frequencies, _, size = steering.shape
    activity = rng.gamma(0.3, size=(1, FRAMES, 2))
    amplitude = np.sqrt(activity * rng.gamma(0.3, size=(frequencies, FRAMES, 2)))
    waves = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    white = rng.normal(size=(2, frequencies, FRAMES, size))
    noise = 0.02 * (white[0] + 1j * white[1])
    mixture = np.einsum("ftk,fkm->ftm", waves, np.asarray(steering)[:, list(TRUE_DIRECTIONS)]) + noise
    energy = np.concatenate([amplitude**2, (np.abs(noise) ** 2).mean(-1, keepdims=True)], -1)
    return jnp.asarray(mixture), energy


@pytest.mark.parametrize("kind", [LDACGMM, CACGMM])  # that of the third has its own test
def test_derivation_holds(kind):
    keys = jr.split(jr.key(0), 3)
    phases = 2 * jnp.pi * jr.uniform(keys[0], (2, 3, 2))
    model = _model(kind, jax.lax.complex(jnp.cos(phases), jnp.sin(phases)))
    mixture = jr.normal(keys[1], (2, 5, 2), complex)
    is_observed = (jr.uniform(keys[2], mixture.shape[:2]) < 0.7).at[:, 1].set(False)
    report = vbss.check_derivation(model, (mixture, is_observed), key=jr.key(3), num_states=2, contract=False)
    assert report.passed, f"\n{report}"
    assert {check.block for check in report.blocks if check.difference is not None} == set(model.schedule)
    assert report.elbo_difference is not None and report.elbo_difference < 1e-12


@pytest.mark.parametrize("kind", MODELS)
def test_start_adds_the_noise_to_that_of_the_sources(kind, steering, scene):
    mixture, _ = scene
    starts = [_model(kind, steering, has_noise).start(jr.key(0), mixture) for has_noise in (False, True)]
    np.testing.assert_allclose(starts[1]["source"][..., :2], 2 / 3 * starts[0]["source"])
    np.testing.assert_allclose(starts[1]["source"].sum(-1), np.ones(mixture.shape[:2]))
    np.testing.assert_array_equal(starts[1]["power"][:, :2], starts[0]["power"])
    np.testing.assert_allclose(starts[1]["power"][:, 2], (np.abs(mixture) ** 2).mean(-1))
    assert set(starts[0]) == set(starts[1])


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_not_observed_may_hold_anything(kind, steering, scene):
    mixture = scene[0].astype(jnp.complex64)
    model = _model(kind, steering.astype(jnp.complex64))
    is_observed = jnp.ones(mixture.shape[:2], bool).at[:, 40:].set(False).at[5:9, :30].set(False)
    bounds = [
        vbss.fit(model, (jnp.where(is_observed[..., None], mixture, junk), is_observed), max_steps=2).elbo
        for junk in (mixture, jnp.full_like(mixture, 3e25))
    ]
    assert np.isfinite(bounds).all() and bounds[0].dtype == np.float32
    np.testing.assert_allclose(*bounds, rtol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_noise_owns_the_bins_of_no_source(kind, steering, scene):
    mixture, energy = scene
    solution = vbss.fit(_model(kind, steering), mixture, vbss.EM(tolerance=0.0), key=jr.key(0), max_steps=15)
    assert np.diff(solution.elbo).min() > 0
    probs = np.asarray(solution.posterior["source"].probs)[5:]  # above 500 Hz
    owner, weight = energy[5:].argmax(-1), energy[5:].sum(-1)
    chosen = probs.argmax(-1)
    is_source = owner < 2
    right = chosen[is_source] == owner[is_source], 1 - chosen[is_source] == owner[is_source]  # in either order
    assert max(np.average(r, weights=weight[is_source]) for r in right) > 0.9
    assert probs[~is_source][:, -1].mean() > 0.5
    assert np.average(probs[is_source][:, -1], weights=weight[is_source]) < 0.2
    if kind is not CACGMM:
        assert sorted(np.asarray(solution.posterior["direction"].probs).argmax(-1)) == list(TRUE_DIRECTIONS)
