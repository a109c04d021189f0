"""Runs that were stopped and go on from a file, through the same states as if they had not stopped."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest
from programs import gaussian_mixture, student_mixture

import vbss


@pytest.fixture(scope="module")
def problem():
    return gaussian_mixture(jr.key(0))


@pytest.mark.parametrize("algorithm", [vbss.EM(tolerance=0.0), vbss.NaturalGradient(10, "n", tolerance=0.0)])
def test_a_resumed_run_is_the_uninterrupted_one(problem, algorithm, tmp_path):
    model, data = problem
    path = tmp_path / "run.vbss"
    whole = vbss.fit(model, data, algorithm, max_steps=7)
    vbss.fit(model, data, algorithm, max_steps=4, checkpoint=path)
    resumed = vbss.fit(model, data, algorithm, max_steps=7, checkpoint=path)
    assert resumed.num_steps == 7 and resumed.status is whole.status
    np.testing.assert_array_equal(resumed.elbo, whole.elbo)
    for one, other in zip(jax.tree.leaves(resumed.model), jax.tree.leaves(whole.model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_that_has_converged_is_returned_as_it_is(problem, tmp_path):
    model, data = problem
    path = tmp_path / "run.vbss"
    first = vbss.fit(model, data, vbss.EM(tolerance=1e-3), checkpoint=path)
    again = vbss.fit(model, data, vbss.EM(tolerance=1e-3), checkpoint=path)
    assert first.status is vbss.Status.converged
    np.testing.assert_array_equal(again.elbo, first.elbo)


def test_an_interrupted_run_is_in_its_checkpoint(problem, tmp_path):
    model, data = problem
    path = tmp_path / "run.vbss"

    def interrupt(step, *_):
        raise KeyboardInterrupt

    stopped = vbss.fit(model, data, vbss.EM(tolerance=0.0), progress=interrupt, checkpoint=path)
    assert stopped.status is vbss.Status.interrupted and stopped.num_steps > 0
    loaded = vbss.load(path)
    assert loaded.status is vbss.Status.interrupted and loaded.num_steps == stopped.num_steps


def test_a_checkpoint_of_another_model_is_refused(problem, tmp_path):
    model, data = problem
    path = tmp_path / "run.vbss"
    vbss.fit(model, data, max_steps=1, checkpoint=path)
    smaller, _ = gaussian_mixture(jr.key(0), components=2)
    with pytest.raises(ValueError, match="parameters of other shapes"):
        vbss.fit(smaller, data, checkpoint=path)
    other, _ = student_mixture(jr.key(0))
    with pytest.raises(ValueError, match="holds no inference of a StudentMixture"):
        vbss.fit(other, data, checkpoint=path)


def test_a_checkpoint_of_other_data_or_another_algorithm_is_refused(problem, tmp_path):
    model, (y,) = problem
    path = tmp_path / "run.vbss"
    vbss.fit(model, y, max_steps=1, checkpoint=path)
    with pytest.raises(ValueError, match="holds a run on other data"):
        vbss.fit(model, y + 1, checkpoint=path)
    with pytest.raises(ValueError, match="another algorithm than NaturalGradient"):
        vbss.fit(model, y, vbss.NaturalGradient(), checkpoint=path)


class Inner(eqx.Module):
    scale: jax.Array


def test_modules_inside_a_users_model_are_read_back(tmp_path):
    class Nested(vbss.models.GaussianMixture):
        inner: list = eqx.field(default_factory=list)

    model, data = gaussian_mixture(jr.key(0))
    nested = Nested(model.log_weights, model.loc, model.precision, model.anchor, [Inner(model.anchor)])
    path = tmp_path / "run.vbss"
    vbss.fit(nested, data, max_steps=1, checkpoint=path)
    assert vbss.fit(nested, data, vbss.EM(tolerance=0.0), max_steps=2, checkpoint=path).num_steps == 2
