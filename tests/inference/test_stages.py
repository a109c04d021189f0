"""Models one after the other in one program: each stage is what `fit` makes of it from where the last one ended."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vbss
from vbss.binaural.vessl import _hand_over, labels_of_levels
from vbss.errors import InputError
from vbss.inference.stages import fit_stages
from vbss.models import PPAM, VESSL, BayesianGaussianMixture, GaussianMixture

SHAPE, GROUPS, STEPS = (40, 2), 3, 4


@pytest.fixture(scope="module")
def data():
    groups = jr.bernoulli(jr.key(0), 0.5, (SHAPE[0], 1)).astype(float)
    return jr.normal(jr.key(1), SHAPE) + 3.0 * groups


@pytest.fixture(scope="module")
def models(data):
    """Priors that empty more and more components."""
    return [BayesianGaussianMixture.init(data, GROUPS, concentration=count) for count in (5.0, 0.5, 0.01)]


def same(model, before, posterior, data):
    return posterior


def assert_close(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_stages_are_inferences_one_after_the_other(models, data, tolerance):
    algorithm = vbss.EM(tolerance)
    found, bounds = fit_stages(models, data, algorithm, hand_over=same, steps=STEPS, key=jr.key(3))
    start, alone = None, None
    for model, trace in zip(models, bounds, strict=True):
        alone = vbss.fit(model, data, algorithm, start=start, key=jr.key(3), max_steps=STEPS)
        np.testing.assert_allclose(trace, alone.elbo[: alone.num_steps], rtol=1e-10)
        start = alone.posterior
    assert (found.status, found.num_steps) == (alone.status, alone.num_steps)
    np.testing.assert_allclose(found.elbo, alone.elbo, rtol=1e-10)
    assert_close(found.posterior, alone.posterior)
    if tolerance:
        assert min(len(trace) for trace in bounds) < STEPS
    # A result like any other: it is gone on with.
    later = vbss.fit(models[-1], data, algorithm, start=found, max_steps=2)
    np.testing.assert_allclose(later.elbo[0], found.elbo[-1], rtol=1e-10)


def test_one_stage_is_fit(models, data):
    found, (trace,) = fit_stages(models[:1], data, hand_over=same, steps=STEPS, key=jr.key(1))
    alone = vbss.fit(models[0], data, key=jr.key(1), max_steps=STEPS)
    np.testing.assert_allclose(found.elbo, alone.elbo, rtol=1e-10)
    assert len(trace) == STEPS


def test_starts_may_be_posteriors_and_solutions(models, data):
    earlier = vbss.fit(models[0], data, key=jr.key(1), max_steps=2)
    expected, _ = fit_stages(models, data, hand_over=same, start=earlier.posterior, steps=2)
    found, bounds = fit_stages(models, data, hand_over=same, start=earlier, steps=2)
    np.testing.assert_array_equal(found.elbo, expected.elbo)
    np.testing.assert_allclose(bounds[0][0], earlier.elbo[-1], rtol=1e-10)


def test_a_second_run_of_the_same_shape_compiles_nothing(models, data):
    traces = []

    def counted(model, before, posterior, data):
        traces.append(1)
        return posterior

    for steps in (2, 3):
        fit_stages(models, data + steps, hand_over=counted, steps=steps)
        after_first = len(traces) if steps == 2 else after_first
    assert after_first > 0 and len(traces) == after_first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda models, data: {"models": []}, "at least one, without learnt fields"),
        (lambda models, data: {"models": [GaussianMixture.init(data, 2, key=jr.key(0))]}, "without learnt fields"),
        (
            lambda models, data: {"models": [*models, BayesianGaussianMixture.init(data, GROUPS + 1)]},
            "values of their arrays alone",
        ),
        (
            lambda models, data: {"models": [models[0], eqx.tree_at(lambda m: m.anchor, models[1], jnp.zeros(3))]},
            "values of their arrays alone",
        ),
        (
            lambda models, data: {"models": [models[0], jax.tree.map(lambda a: a.astype(jnp.float32), models[1])]},
            "values of their arrays alone",
        ),
        (lambda models, data: {"steps": 0}, "steps"),
        (lambda models, data: {"steps": 51}, "steps"),
        (lambda models, data: {"data": jnp.full(SHAPE, jnp.nan)}, "holds infinite or nan"),
        (lambda models, data: {"algorithm": vbss.NaturalGradient()}, "algorithm must be a vbss.EM"),
        (lambda models, data: {"key": 3}, "key must be one JAX random key"),
    ],
)
def test_bad_input_is_refused_by_name(models, data, change, message):
    unchecked = inspect.unwrap(fit_stages)  # without the annotations, which are checked in tests only
    with pytest.raises(InputError, match=message):
        unchecked(**{"models": models, "data": data, "hand_over": same} | change(models, data))


@given(st.integers(1, 700), st.integers(1, 5))
def test_levels_are_nested_and_grow_to_single_frequencies(num_frequencies, stride):
    levels = labels_of_levels(num_frequencies, stride)
    np.testing.assert_array_equal(levels[-1], np.arange(num_frequencies))
    sizes = [len(np.unique(labels)) for labels in levels]
    assert sizes[:-1] == [2 ** (stride * level) for level in range(len(levels) - 1)]
    assert sizes[-1] == num_frequencies and sizes == sorted(set(sizes))
    for labels in levels:
        assert labels.min() >= 0 and labels.max() < num_frequencies
        assert (np.diff(labels) >= 0).all()  # blocks are of neighbours
    for coarse, fine in zip(levels[:-1], levels[1:], strict=True):
        # What shares a label on the finer level does on the coarser one.
        assert len(np.unique(np.stack([coarse, fine]), axis=1).T) == len(np.unique(fine))
        # Blocks are of about one size.
        counts = np.unique(coarse, return_counts=True)[1]
        assert np.ptp(counts) <= 1


def test_the_bound_never_falls_from_level_to_level():
    num_frequencies = 5  # no power of two
    keys = jr.split(jr.key(0), 4)
    positions = jr.uniform(keys[0], (40, 1), minval=-1.0, maxval=1.0)
    cues = 4 * jnp.sin(2 * positions @ jr.normal(keys[1], (1, num_frequencies)))
    ppam = vbss.fit(PPAM.init(positions, cues, 4), (positions, cues), max_steps=10).model
    is_cue = jnp.ones((1, num_frequencies), bool)
    model = VESSL.init(ppam, is_cue, 2, noise_variance=jnp.array([0.2]), outlier_probability=0.2)
    heard = 3 * jr.normal(keys[2], (1, num_frequencies, 9))
    is_observed = jr.bernoulli(keys[3], 0.7, (num_frequencies, 9))
    stages = [model.replace(labels=jnp.asarray(labels)) for labels in labels_of_levels(num_frequencies)]
    algorithm = vbss.EM(0.0, frozen=("log_mixing_weights",))  # even, see the model
    start = stages[0].given_pieces(heard, is_observed, jnp.array([0, 2]))
    solution, bounds = fit_stages(stages, (heard, is_observed), algorithm, hand_over=_hand_over, start=start, steps=5)
    assert isinstance(solution.model, VESSL) and len(bounds) == len(stages)
    np.testing.assert_array_equal(solution.model.labels, np.arange(num_frequencies))
    trace = np.concatenate([*bounds, solution.elbo[-1:]])
    assert np.diff(trace).min() > -1e-8 * np.abs(trace).max()
