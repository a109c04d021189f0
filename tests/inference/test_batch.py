"""Many recordings in one loop: each is what `fit` makes of it alone, in turn or together."""

import inspect
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.models import GaussianMixture, LocalGaussianNMF

BATCH = sys.modules[vbss.fit_batch.__module__]


@pytest.fixture(scope="module")
def mixtures():
    """Three recordings of two groups, of which one is told apart at once and one never quite."""
    groups = jr.bernoulli(jr.key(0), 0.4, (3, 40, 1)).astype(float)
    data = jr.normal(jr.key(1), (3, 40, 2)) + jnp.array([20.0, 3.0, 1.0]).reshape(3, 1, 1) * groups
    return GaussianMixture.init(data[0], 2, key=jr.key(2)), data


@pytest.fixture(params=["in turn", "together"])
def way(request, monkeypatch):
    monkeypatch.setattr(BATCH, "_together", lambda: request.param == "together")
    jax.clear_caches()
    yield
    jax.clear_caches()


def _assert_alike(found, alone):
    assert (found.status, found.num_steps) == (alone.status, alone.num_steps)
    np.testing.assert_allclose(found.elbo, alone.elbo, rtol=1e-11)
    for ours, theirs in zip(
        jax.tree.leaves((found.model, found.posterior)), jax.tree.leaves((alone.model, alone.posterior)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_each_recording_is_inferred_as_alone(way, mixtures):
    model, data = mixtures
    told = []
    together = vbss.fit_batch(model, data, max_steps=70, progress=lambda *numbers: told.append(numbers))
    alone = [vbss.fit(model, y, max_steps=70) for y in data]
    for found, expected in zip(together, alone, strict=True):
        _assert_alike(found, expected)
    assert len({found.num_steps for found in together}) > 1  # each ends by itself
    assert told and told[-1][1] == 70
    again = vbss.fit(model, data[2], start=together[2], max_steps=3)  # and goes on
    assert again.num_steps >= 1 and again.elbo[0] >= together[2].elbo[-1] - 1e-9


def test_starts_keys_and_several_arrays(way):
    mixture = jr.normal(jr.key(0), (2, 4, 9, 2), complex)
    is_observed = jr.bernoulli(jr.key(1), 0.8, (2, 4, 9))
    model, keys = LocalGaussianNMF.init(2, 2, loading=1e-2), jr.split(jr.key(3), 2)
    starts = [model.start(key, x, m) for key, x, m in zip(keys, mixture, is_observed, strict=True)]
    found = vbss.fit_batch(model, (mixture, is_observed), starts=starts, max_steps=4)
    random = vbss.fit_batch(model, (mixture, is_observed), key=jr.key(3), max_steps=0)
    for index, solution in enumerate(found):
        one = mixture[index], is_observed[index]
        _assert_alike(solution, vbss.fit(model, one, start=starts[index], max_steps=4))
        _assert_alike(random[index], vbss.fit(model, one, key=keys[index], max_steps=0))


@pytest.mark.parametrize("algorithm", [vbss.NaturalGradient(), vbss.MonteCarloEM()])
def test_other_algorithms_draw_as_alone(mixtures, algorithm):
    model, data = mixtures
    found = vbss.fit_batch(model, data[:2], algorithm, key=jr.key(4), max_steps=3)
    for solution, y, key in zip(found, data[:2], jr.split(jr.key(4), 2), strict=True):
        _assert_alike(solution, vbss.fit(model, y, algorithm, key=key, max_steps=3))


def test_interruption_keeps_what_there_is(mixtures, monkeypatch):
    model, data = mixtures
    chunks, calls = BATCH._chunks, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return chunks(*arguments)

    monkeypatch.setattr(BATCH, "_chunks", interrupted)
    found = vbss.fit_batch(model, data, vbss.EM(tolerance=0.0), max_steps=1000)
    assert all(solution.status is vbss.Status.interrupted and solution.num_steps == 50 for solution in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": jnp.zeros((0, 40, 2))}, "the same number of recordings, at least 1"),
        ({"data": jnp.zeros(())}, "the same number of recordings, at least 1"),
        ({"data": (jnp.zeros((2, 40, 2)), jnp.zeros((3, 40, 2)))}, "same number of recordings"),
        ({"data": jnp.full((2, 40, 2), jnp.nan)}, "holds infinite or nan"),
        ({"starts": [None]}, "starts must hold one start, not a Solution, for each of 3 recordings"),
        ({"algorithm": "em"}, "algorithm must be a vbss algorithm"),
        ({"max_steps": -1}, "max_steps"),
        ({"key": 3}, "key must be one JAX random key"),
    ],
)
def test_bad_input_is_refused_by_name(mixtures, change, message):
    model, data = mixtures
    fit_batch = inspect.unwrap(vbss.fit_batch)  # without the annotations, which are checked in tests only
    with pytest.raises(ValueError, match=message):
        fit_batch(model, change.get("data", data), **{name: v for name, v in change.items() if name != "data"})
