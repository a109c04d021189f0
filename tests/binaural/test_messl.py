"""MESSL on recordings: the bound across growing bands, separation, precision, one compilation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vbss
from vbss.binaural.messl import infer_messl
from vbss.errors import InputError
from vbss.models import MESSL, messl_closed_forms
from vbss.models.messl_start import growing_bands, head_levels

FREQUENCIES = np.arange(1, 22) * 250.0


def _scene(seed, num_frames=30):
    """Two sources in a dummy head's levels, one on each side; which one rules each bin."""
    rng = np.random.default_rng(seed)
    delays = np.array([-4e-4, 3.5e-4])
    owner = rng.integers(2, size=(len(FREQUENCIES), num_frames))
    owner = np.where(rng.random(owner.shape) < 0.5, (np.arange(num_frames) // 5 % 2)[None], owner)
    omega = 2 * np.pi * FREQUENCIES
    levels = np.asarray(head_levels(jnp.asarray(omega), jnp.asarray(delays)))
    phase = omega[:, None] * delays[owner] + 0.25 * rng.normal(size=owner.shape)
    level = np.take_along_axis(levels, owner, 1) + 2 * rng.normal(size=owner.shape)
    return jnp.asarray(np.angle(np.exp(1j * phase))), jnp.asarray(level), owner, delays


MODELS = {
    "base": (MESSL.init(FREQUENCIES, 2), None),
    "garbage and prior": (MESSL.init(FREQUENCIES, 2, has_garbage=True), 3.0),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sources_are_separated_and_localised(name, dtype):
    model, level_prior = MODELS[name]
    phase, level, owner, delays = _scene(0)
    result = infer_messl(model, (phase.astype(dtype), level.astype(dtype)), level_prior=level_prior)
    assert result.status is vbss.Status.max_steps
    assert result.elbo.shape == (17,) and result.elbo.dtype == dtype
    assert result.masks.shape == (*phase.shape, 2) and result.masks.dtype == dtype
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(result.points))
    assert (np.asarray(result.masks).argmax(-1) == owner).mean() > 0.9
    np.testing.assert_allclose(result.delays, delays, atol=5e-5)
    np.testing.assert_allclose(result.delay_probs.sum(-1), np.ones(2), rtol=1e-5)
    np.testing.assert_array_equal(result.model.bands, np.arange(len(FREQUENCIES)))


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(list(MODELS)), st.booleans(), st.booleans())
def test_bound_never_falls(seed, name, is_single, is_missing):
    rng = np.random.default_rng(seed)
    model, level_prior = MODELS[name]
    dtype = jnp.float32 if is_single else jnp.float64
    shape = len(FREQUENCIES), 12
    phase = jnp.asarray(rng.vonmises(0, rng.gamma(1.0), shape), dtype)
    level = jnp.asarray(rng.normal(0, 20 * rng.random(), shape), dtype)
    is_observed = jnp.asarray(rng.random(shape) < (0.6 if is_missing else 1.0))
    result = infer_messl(model, (phase, level, is_observed), level_prior=level_prior)
    assert result.status is vbss.Status.max_steps
    rounding = np.abs(result.elbo).max() * np.finfo(dtype).eps ** 0.75
    assert np.diff(result.elbo).min() > -rounding
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.points))


def test_a_run_is_the_engines_and_may_be_gone_on_with():
    phase, level, _, _ = _scene(1)
    model, data = MODELS["base"][0], (phase, level)
    untied = np.tile(np.arange(len(FREQUENCIES)), (4, 1))
    result = infer_messl(model, data, num_steps=4, bands=untied)
    solution = vbss.fit(model, data, vbss.EM(tolerance=0.0), max_steps=4)
    for name, value in result.points.items():
        np.testing.assert_allclose(value, solution.posterior[name], rtol=1e-7, atol=1e-9)
    later = infer_messl(model, data, num_steps=4, bands=untied, start=result.points)
    assert np.diff(later.elbo).min() > 0
    np.testing.assert_allclose(later.elbo[0], result.elbo[-1], rtol=1e-12)


def test_one_compilation_for_a_shape(monkeypatch):
    traces = 0

    def counted(*arguments):
        nonlocal traces
        traces += 1
        return messl_closed_forms.em_step(*arguments)

    monkeypatch.setattr("vbss.binaural.messl.em_step", counted)
    model, level_prior = MODELS["garbage and prior"]
    for seed in (2, 3):
        phase, level, *_ = _scene(seed, num_frames=23)
        result = infer_messl(model, (phase, level), level_prior=level_prior)
        after_first = traces if seed == 2 else after_first
    coarse = growing_bands(len(FREQUENCIES), 16) * 0
    infer_messl(model, (phase, level), level_prior=1.0, bands=coarse)
    infer_messl(eqx.tree_at(lambda m: m.pseudo_count, model, jnp.array(0.1)), (phase, level), level_prior=2.0)
    assert after_first > 0 and traces == after_first
    assert result.status is vbss.Status.max_steps


def test_bad_input_is_refused_by_name():
    phase, level, *_ = _scene(4)
    model, bands = MODELS["base"][0], growing_bands(len(FREQUENCIES), 5)
    for arguments, message in (
        ({"num_steps": 0}, "num_steps"),
        ({"bands": bands[:4]}, "shape"),
        ({"bands": bands[::-1]}, "nested"),
        ({"bands": np.full_like(bands, 30)}, "own frequencies"),
        ({"start": {"phase_loc": jnp.zeros(3)}}, "phase_loc"),
    ):
        with pytest.raises(InputError, match=message):
            infer_messl(model, (phase, level), **{"num_steps": 5, **arguments})
