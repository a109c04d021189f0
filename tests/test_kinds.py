import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import vbss
from vbss.kinds import quadratic_coefficients

KEY = jr.key(0)


def positive(key, *shape):
    root = jr.normal(key, (*shape[:-1], shape[-1] + 2))
    return jnp.einsum("...ij,...kj->...ik", root, root) / shape[-1]


def simplex_problem(key):
    counts = jr.uniform(key, (3, 4)) * 10
    expected = jnp.log(counts / counts.sum(-1, keepdims=True))
    return vbss.Simplex(), lambda v: (counts * v).sum(), jax.nn.log_softmax(jr.normal(key, (3, 4))), expected


def linear_problem(event_rank):
    def problem(key):
        keys = jr.split(key, 3)
        shape = (3, 2, 2)
        size = int(np.prod(shape[3 - event_rank :]))
        precision = positive(keys[0], 12 // size, size, size)
        expected = jr.normal(keys[1], shape)

        def objective(v):
            difference = (v - expected).reshape(-1, size)
            return -jnp.einsum("bi,bij,bj->", difference, precision, difference) / 2 + 3.0

        return vbss.Linear(event_rank), objective, jr.normal(keys[2], shape), expected

    return problem


def precision_problem(key):
    counts, rates, start = jr.uniform(key, (3, 3, 4)) * 5 + 0.1
    return vbss.Precision(), lambda u: (counts * jnp.log(u) - rates * u).sum(), start, counts / rates


def precision_matrix_problem(key):
    keys = jr.split(key, 3)
    scatter, start = positive(keys[0], 4, 3, 3), positive(keys[1], 4, 3, 3)
    counts = jr.uniform(keys[2], (4,)) * 5 + 1

    def objective(p):
        return (counts * jnp.linalg.slogdet(p)[1]).sum() / 2 - jnp.einsum("bij,bji->", p, scatter) / 2

    return vbss.Precision(2), objective, start, counts[:, None, None] * jnp.linalg.inv(scatter)


def variance_problem(key):
    counts, scatter, start = jr.uniform(key, (3, 3, 4)) * 5 + 0.1
    return vbss.Variance(), lambda v: -(counts * jnp.log(v) + scatter / v).sum(), start, scatter / counts


PROBLEMS = {
    "simplex": simplex_problem,
    "linear scalars": linear_problem(0),
    "linear vectors": linear_problem(1),
    "linear matrices": linear_problem(2),
    "precision scalars": precision_problem,
    "precision matrices": precision_matrix_problem,
    "variance": variance_problem,
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_maximize_finds_the_maximiser(problem):
    kind, objective, start, expected = problem(KEY)
    found = jax.jit(lambda v: kind.maximize(objective, v))(start)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    slope = jax.jit(jax.grad(lambda u: objective(kind.constrain(u))))
    assert jnp.abs(slope(kind.unconstrain(start))).max() > 1e-2
    assert jnp.abs(slope(kind.unconstrain(found))).max() < 1e-9
    assert objective(found) > objective(start)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_unconstrained_coordinates(problem):
    kind, _, start, _ = problem(KEY)
    unconstrained = kind.unconstrain(start)
    assert unconstrained.shape == start.shape and unconstrained.dtype == start.dtype
    np.testing.assert_allclose(kind.constrain(unconstrained), start, rtol=1e-12, atol=1e-12)
    # Every real array stands for a legal value.
    value = kind.constrain(3 * jr.normal(KEY, start.shape))
    again = kind.constrain(kind.unconstrain(value))
    np.testing.assert_allclose(again, value, rtol=1e-6, atol=1e-9)


def test_unconstrained_values_are_legal():
    anything = 2 * jr.normal(KEY, (5, 3, 3))
    np.testing.assert_allclose(jnp.exp(vbss.Simplex().constrain(anything)).sum(-1), 1, rtol=1e-12)
    assert (vbss.Precision().constrain(anything) > 0).all()
    assert (vbss.Variance().constrain(anything) > 0).all()
    matrices = vbss.Precision(2).constrain(anything)
    np.testing.assert_allclose(matrices, jnp.swapaxes(matrices, -1, -2), rtol=1e-12)
    assert (jnp.linalg.eigvalsh(matrices) > 0).all()


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_maximize_under_vmap(problem):
    keys = jr.split(KEY, 3)

    def found_and_expected(key):
        kind, objective, start, expected = problem(key)
        return kind.maximize(objective, start), expected

    found, expected = jax.jit(jax.vmap(found_and_expected))(keys)
    assert not jnp.allclose(found[0], found[1])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_simplex_with_counts_of_zero(dtype):
    counts = jnp.array([[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype)
    start = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], dtype))
    found = vbss.Simplex().maximize(lambda v: (counts * v).sum(), start)
    assert found.dtype == dtype and jnp.isfinite(found).all()
    np.testing.assert_allclose(jnp.exp(found[0]), [0.75, 0, 0.25], rtol=1e-6, atol=1e-30)
    np.testing.assert_array_equal(found[1], start[1])  # no evidence: as it was


def test_single_precision_is_kept():
    key = jr.key(1)
    for kind, shape in [(vbss.Linear(1), (4, 2)), (vbss.Precision(), (4,)), (vbss.Variance(), (4,))]:
        start = jnp.exp(jr.normal(key, shape, jnp.float32))
        found = kind.maximize(lambda v: -(v + 2 / v).sum() if v.ndim == 1 else -(v**2 - v).sum(), start)
        assert found.dtype == jnp.float32


@pytest.mark.parametrize("event_rank", [0, 1, 2])
def test_quadratic_coefficients(event_rank):
    _, objective, start, _ = PROBLEMS[["linear scalars", "linear vectors", "linear matrices"][event_rank]](KEY)
    gradient, hessian = jax.jit(lambda v: quadratic_coefficients(objective, v, event_rank))(start)
    size = 2**event_rank
    batch = start.shape[: 3 - event_rank]
    assert gradient.shape == (*batch, size) and hessian.shape == (*batch, size, size)
    full = -jax.hessian(lambda v: objective(v.reshape(start.shape)))(start.reshape(-1)).reshape(
        12 // size, size, -1, size
    )
    blocks = full[np.arange(12 // size), :, np.arange(12 // size)]
    np.testing.assert_allclose(hessian.reshape(blocks.shape), blocks, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient.reshape(start.shape), jax.grad(objective)(start), rtol=1e-12)


def test_a_start_does_not_matter_to_a_maximiser():
    for problem in PROBLEMS.values():
        kind, objective, start, expected = problem(KEY)
        other = kind.constrain(kind.unconstrain(start) + 0.5)
        np.testing.assert_allclose(kind.maximize(objective, other), expected, rtol=1e-9, atol=1e-9)


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
