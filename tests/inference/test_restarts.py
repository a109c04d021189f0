"""The best of several starts is what `fit` makes of it, step for step."""

import inspect
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.inference.restarts import fit_best
from vbss.models import GaussianMixture

LOOP = sys.modules[fit_best.__module__]
SHAPE, GROUPS = (60, 2), 3


@pytest.fixture(scope="module")
def mixture():
    """Three groups in a row, the second nearer to the first."""
    groups = jr.randint(jr.key(0), (SHAPE[0], 1), 0, GROUPS)
    data = jr.normal(jr.key(1), SHAPE) + jnp.array([0.0, 4.0, 11.0])[groups]
    return GaussianMixture.init(data, GROUPS, key=jr.key(2)), data


@pytest.fixture(scope="module")
def starts(mixture):
    return [{"component": jax.nn.softmax(3 * jr.normal(key, (SHAPE[0], GROUPS)))} for key in jr.split(jr.key(5), 4)]


def assert_alike(found, alone):
    assert (found.status, found.num_steps) == (alone.status, alone.num_steps)
    np.testing.assert_allclose(found.elbo, alone.elbo, rtol=1e-11)
    ours, theirs = (jax.tree.leaves((solution.model, solution.posterior)) for solution in (found, alone))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("trial_steps", "max_steps"), [(3, 8), (8, 8), (50, 5), (5, 120)])
def test_the_best_start_is_gone_on_with_as_fit_does(mixture, starts, trial_steps, max_steps):
    model, data = mixture
    found = fit_best(model, data, starts=starts, trial_steps=trial_steps, max_steps=max_steps)
    alone = [vbss.fit(model, data, start=start, max_steps=max_steps) for start in starts]
    steps = min(trial_steps, max_steps)
    best = int(np.argmax([solution.elbo[: solution.num_steps][:steps][-1] for solution in alone]))
    assert_alike(found, alone[best])
    assert found.num_steps <= max_steps
    if found.status is vbss.Status.max_steps:
        assert found.num_steps == max_steps and len(found.elbo) == max_steps + 1


def test_one_start_is_fit(mixture, starts):
    model, data = mixture
    found = fit_best(model, data, starts=starts[:1], max_steps=4)
    assert_alike(found, vbss.fit(model, data, start=starts[0], max_steps=4))


def test_no_steps_are_no_steps(mixture, starts):
    model, data = mixture
    assert_alike(fit_best(model, data, starts=starts, max_steps=0), vbss.fit(model, data, start=starts[0], max_steps=0))


def test_posteriors_are_starts_and_the_result_is_one(mixture, starts):
    model, data = mixture
    begun = [vbss.fit(model, data, start=start, max_steps=0).posterior for start in starts]
    found = fit_best(model, data, starts=begun, trial_steps=3, max_steps=6)
    assert_alike(found, fit_best(model, data, starts=starts, trial_steps=3, max_steps=6))
    later = vbss.fit(model, data, start=found, max_steps=2)
    np.testing.assert_allclose(later.elbo[0], found.elbo[-1], rtol=1e-11)


@pytest.mark.parametrize("place", [0, 2])
def test_a_start_that_fails_is_not_chosen(mixture, starts, place):
    model, data = mixture
    broken = {site: value.at[0].set(jnp.nan) for site, value in starts[0].items()}
    with_broken = [*starts[:place], broken, *starts[place:]]
    try:
        found = fit_best(model, data, starts=with_broken, trial_steps=3, max_steps=6)
    except ValueError as error:  # told apart before anything is computed
        assert "nan" in str(error) or "probabilities" in str(error)
    else:
        assert_alike(found, fit_best(model, data, starts=starts, trial_steps=3, max_steps=6))


def test_starts_that_all_fail_are_told(mixture, starts, monkeypatch):
    model, data = mixture
    posterior = vbss.fit(model, data, start=starts[0], max_steps=0).posterior
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), posterior)
    good = fit_best(model, data, starts=[broken, posterior, broken], trial_steps=2, max_steps=4)
    assert_alike(good, vbss.fit(model, data, start=posterior, max_steps=4))
    assert fit_best(model, data, starts=[broken, broken], max_steps=4).status is vbss.Status.nonfinite


def test_a_second_recording_of_the_same_shape_compiles_nothing(mixture, starts):
    model, data = mixture
    traces = []

    class Counting(vbss.EM):
        def step(self, model, state, data, constants):
            traces.append(1)
            return super().step(model, state, data, constants)

    algorithm = Counting()
    first = fit_best(model, data, algorithm, starts=starts, trial_steps=3, max_steps=6)
    before = len(traces)
    second = fit_best(model, data + 1, algorithm, starts=starts[::-1], trial_steps=2, max_steps=9)
    assert before > 0 and len(traces) == before
    assert first.elbo.shape != second.elbo.shape


def test_interruption_keeps_what_there_is(mixture, starts, monkeypatch):
    model, data = mixture
    going, calls = LOOP._going, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return going(*arguments)

    monkeypatch.setattr(LOOP, "_going", interrupted)
    found = fit_best(model, data, vbss.EM(tolerance=0.0), starts=starts, trial_steps=3, max_steps=100)
    assert found.status is vbss.Status.interrupted and found.num_steps == len(found.elbo) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": []}, "at least one start"),
        ({"starts": [None, None]}, "starts must be mappings of sites or posteriors, got a NoneType"),
        ({"trial_steps": 0}, "trial_steps"),
        ({"trial_steps": 51}, "trial_steps must be a whole number, from 1 to 50"),
        ({"max_steps": -1}, "max_steps"),
        ({"data": jnp.full(SHAPE, jnp.nan)}, "holds infinite or nan"),
        ({"algorithm": "em"}, "algorithm must be a vbss algorithm"),
        ({"key": 3}, "key must be one JAX random key"),
    ],
)
def test_bad_input_is_refused_by_name(mixture, starts, change, message):
    model, data = mixture
    unchecked = inspect.unwrap(fit_best)  # without the annotations, which are checked in tests only
    arguments = {"data": data, "starts": starts} | change
    with pytest.raises(vbss.errors.InputError, match=message):
        unchecked(model, **arguments)


def test_solutions_are_no_starts(mixture, starts):
    model, data = mixture
    solutions = [vbss.fit(model, data, start=start, max_steps=1) for start in starts[:2]]
    with pytest.raises(vbss.errors.InputError, match="got a Solution"):
        fit_best(model, data, starts=solutions)
