from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import vbss
from vbss.kinds import quadratic_coefficients


def positive(rng, *shape):
    root = rng.standard_normal((*shape[:-1], shape[-1] + 2))
    return jnp.asarray(root @ root.swapaxes(-1, -2) / shape[-1])


def uniform(rng, *shape):
    return jnp.asarray(rng.uniform(0.1, 5.0, shape))


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape))


class Problem(NamedTuple):
    """An objective of a kind's class, by its coefficients; where to start; and where its maximum is."""

    kind: vbss.kinds.Kind
    objective: Callable
    coefficients: Any
    start: Array
    expected: Array


def simplex_problem(rng):
    counts, start = uniform(rng, 3, 4), jax.nn.log_softmax(normal(rng, 3, 4))
    expected = jnp.log(counts / counts.sum(-1, keepdims=True))
    return Problem(vbss.Simplex(), lambda counts, v: (counts * v).sum(), counts, start, expected)


def linear_problem(event_rank):
    shape = (3, 2, 2)
    size = int(np.prod(shape[3 - event_rank :]))

    def objective(coefficients, v):
        center, precision = coefficients
        difference = (v - center).reshape(-1, size)
        return -jnp.einsum("bi,bij,bj->", difference, precision, difference) / 2 + 3.0

    def problem(rng):
        center, precision = normal(rng, *shape), positive(rng, 12 // size, size, size)
        return Problem(vbss.Linear(event_rank), objective, (center, precision), normal(rng, *shape), center)

    return problem


def precision_problem(rng):
    counts, rates, start = uniform(rng, 3, 3, 4)

    def objective(coefficients, u):
        return (coefficients[0] * jnp.log(u) - coefficients[1] * u).sum()

    return Problem(vbss.Precision(), objective, (counts, rates), start, counts / rates)


def precision_matrix_problem(rng):
    counts, scatter, start = uniform(rng, 4), positive(rng, 4, 3, 3), positive(rng, 4, 3, 3)

    def objective(coefficients, p):
        counts, scatter = coefficients
        return (counts * jnp.linalg.slogdet(p)[1]).sum() / 2 - jnp.einsum("bij,bji->", p, scatter) / 2

    expected = counts[:, None, None] * jnp.linalg.inv(scatter)
    return Problem(vbss.Precision(2), objective, (counts, scatter), start, expected)


def variance_problem(rng):
    counts, scatter, start = uniform(rng, 3, 3, 4)

    def objective(coefficients, v):
        return -(coefficients[0] * jnp.log(v) + coefficients[1] / v).sum()

    return Problem(vbss.Variance(), objective, (counts, scatter), start, scatter / counts)


PROBLEMS = {
    "simplex": simplex_problem,
    "linear scalars": linear_problem(0),
    "linear vectors": linear_problem(1),
    "linear matrices": linear_problem(2),
    "precision scalars": precision_problem,
    "precision matrices": precision_matrix_problem,
    "variance": variance_problem,
}


each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@each_problem
def test_maximize_finds_the_maximiser(problem):
    kind, objective, coefficients, start, expected = problem(np.random.default_rng(0))

    @jax.jit
    def maximize(start):
        found = kind.maximize(lambda v: objective(coefficients, v), start)
        slope = jax.grad(lambda u: objective(coefficients, kind.constrain(u)))(kind.unconstrain(start))
        return found, slope, objective(coefficients, start)

    found, slope, value = maximize(start)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert jnp.abs(slope).max() > 1e-2
    again, slope, best = maximize(found)
    np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-9)
    assert jnp.abs(slope).max() < 1e-8
    assert best > value


@each_problem
def test_unconstrained_coordinates(problem):
    kind, _, _, start, _ = problem(np.random.default_rng(0))
    constrain, unconstrain = jax.jit(kind.constrain), jax.jit(kind.unconstrain)
    unconstrained = unconstrain(start)
    assert unconstrained.shape == start.shape and unconstrained.dtype == start.dtype
    np.testing.assert_allclose(constrain(unconstrained), start, rtol=1e-12, atol=1e-12)
    # Every real array stands for a legal value.
    value = constrain(3 * normal(np.random.default_rng(1), *start.shape))
    np.testing.assert_allclose(constrain(unconstrain(value)), value, rtol=1e-6, atol=1e-9)


def test_unconstrained_values_are_legal():
    anything = 2 * normal(np.random.default_rng(0), 5, 3, 3)
    np.testing.assert_allclose(jnp.exp(vbss.Simplex().constrain(anything)).sum(-1), 1, rtol=1e-12)
    assert (vbss.Precision().constrain(anything) > 0).all()
    assert (vbss.Variance().constrain(anything) > 0).all()
    matrices = np.asarray(vbss.Precision(2).constrain(anything))
    np.testing.assert_allclose(matrices, matrices.swapaxes(-1, -2), rtol=1e-12)
    assert (np.linalg.eigvalsh(matrices) > 0).all()


@each_problem
def test_maximize_under_vmap(problem):
    problems = [problem(np.random.default_rng(seed)) for seed in range(3)]
    kind, objective = problems[0].kind, problems[0].objective
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *[tuple(p[2:]) for p in problems])
    maximize = jax.vmap(lambda coefficients, start: kind.maximize(lambda v: objective(coefficients, v), start))
    found = jax.jit(maximize)(*stack[:2])
    assert not np.allclose(found[0], found[1])
    np.testing.assert_allclose(found, stack[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_simplex_with_counts_of_zero(dtype):
    counts = jnp.array([[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype)
    start = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], dtype))
    found = vbss.Simplex().maximize(lambda v: (counts * v).sum(), start)
    assert found.dtype == dtype and jnp.isfinite(found).all()
    np.testing.assert_allclose(jnp.exp(found[0]), [0.75, 0, 0.25], rtol=1e-6, atol=1e-30)
    np.testing.assert_array_equal(found[1], start[1])  # no evidence: as it was


@each_problem
def test_single_precision_is_kept(problem):
    kind, objective, *arrays = problem(np.random.default_rng(0))
    coefficients, start, expected = jax.tree.map(lambda a: np.asarray(a, np.float32), tuple(arrays))
    found = jax.jit(lambda c, v: kind.maximize(lambda u: objective(c, u), v))(coefficients, start)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("event_rank", [0, 1, 2])
def test_quadratic_coefficients(event_rank):
    _, objective, coefficients, start, center = linear_problem(event_rank)(np.random.default_rng(0))
    function = jax.jit(lambda v: quadratic_coefficients(lambda u: objective(coefficients, u), v, event_rank))
    gradient, hessian = function(start)
    precision = coefficients[1]
    batch, size = start.shape[: 3 - event_rank], 2**event_rank
    assert gradient.shape == (*batch, size) and hessian.shape == (*batch, size, size)
    np.testing.assert_allclose(hessian.reshape(precision.shape), precision, rtol=1e-9, atol=1e-12)
    expected = np.einsum("bij,bj->bi", precision, np.asarray(center - start).reshape(-1, size))
    np.testing.assert_allclose(gradient.reshape(-1, size), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("event_rank", [-1, 1, 3])
def test_a_precision_is_a_scalar_or_a_matrix(event_rank):
    with pytest.raises(
        ValueError, match=rf"Precision: event_rank must be 0 \(scalars\) or 2 \(matrices\), got {event_rank}"
    ):
        vbss.Precision(event_rank)


def test_an_event_has_no_more_axes_than_its_value():
    with pytest.raises(ValueError, match=r"event_rank 2 .*shape \(3,\)"):
        vbss.Linear(2).maximize(lambda v: -(v**2).sum(), jnp.ones(3))
    with pytest.raises(ValueError, match=r"Linear: event_rank must not be negative, got -1"):
        vbss.Linear(-1)
