import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.linalg import cho_solve, solve_triangular

from vbss.compilation import batches_without_lapack, compiled


def spd(key, *shape):
    root = jr.normal(key, (*shape, shape[-1] + 2))
    return root @ jnp.swapaxes(root, -1, -2)


def calls_lapack(function, *arguments):
    return "lapack" in jax.jit(function).lower(*arguments).as_text()


def solves(matrix, right):
    lower = jnp.linalg.cholesky(matrix)
    upper, beside = jnp.swapaxes(lower, -1, -2), jnp.swapaxes(right, -1, -2)
    yield lower
    for factor, is_lower in ((lower, True), (upper, False)):
        for transposed in (False, True):
            yield solve_triangular(factor, right, trans=int(transposed), lower=is_lower)
            yield jax.lax.linalg.triangular_solve(factor, beside, lower=is_lower, transpose_a=transposed)


def derivatives(matrix, right):
    def half_log_determinant(matrix):
        return jnp.log(jnp.diagonal(jnp.linalg.cholesky(matrix), axis1=-2, axis2=-1)).sum()

    return jax.jvp(jax.grad(half_log_determinant), (matrix,), (matrix,))


def control_flow(matrix, right):
    def step(total, matrix):
        factor = jnp.linalg.cholesky(matrix)
        return total + factor, cho_solve((factor, True), right[0])

    def body(carry):
        count, total = carry
        return count + 1, jnp.linalg.cholesky(matrix + total @ jnp.swapaxes(total, -1, -2))

    scanned = jax.lax.scan(step, jnp.zeros_like(matrix[0]), matrix, reverse=True)
    looped = jax.lax.while_loop(lambda carry: carry[0] < 3, body, (0, jnp.zeros_like(matrix)))
    chosen = jax.lax.cond(right.sum() > 0, jnp.linalg.cholesky, lambda m: m, matrix)
    return scanned, looped, chosen


@pytest.mark.parametrize("size", [3, 11])
def test_batches_are_factorised_and_solved_as_by_lapack(size):
    arguments = spd(jr.key(0), 4, 2, size), jr.normal(jr.key(1), (4, 2, size, 5))

    def function(matrix, right):
        return list(solves(matrix, right)), derivatives(matrix, right), control_flow(matrix, right)

    expected, actual = jax.jit(function)(*arguments), compiled(function)(*arguments)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-8, atol=1e-8), actual, expected)
    assert calls_lapack(function, *arguments)
    assert not calls_lapack(batches_without_lapack(function), *arguments)


@pytest.mark.parametrize("size", [3, 11])
def test_complex_batches_are_taken_too(size):
    root = jr.normal(jr.key(0), (4, size, size + 2), complex)
    arguments = root @ jnp.swapaxes(root, -1, -2).conj(), jr.normal(jr.key(1), (4, size, 5), complex)

    def function(matrix, right):
        factor = jnp.linalg.cholesky(matrix)
        adjoint = solve_triangular(factor, right, trans=2, lower=True)
        return factor, adjoint, cho_solve((factor, True), right), jnp.linalg.solve(matrix, right)

    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, atol=1e-9), compiled(function)(*arguments), function(*arguments)
    )
    assert not calls_lapack(batches_without_lapack(lambda *both: function(*both)[:3]), *arguments)


@pytest.mark.parametrize("size", [2, 9])
def test_a_factor_reads_the_lower_triangle_and_fails_as_lapacks(size):
    matrices = jnp.tril(spd(jr.key(0), 3, size)).at[1, 1, 1].set(-1.0).at[2].set(1.0)
    lower = jnp.tril(jax.lax.linalg.cholesky(matrices, symmetrize_input=False))
    ours = compiled(lambda m: jax.lax.linalg.cholesky(m, symmetrize_input=False))(matrices)
    np.testing.assert_allclose(ours[0], lower[0], rtol=1e-9)
    assert bool(jnp.isnan(ours[1][np.tril_indices(size)]).all()) and bool(jnp.isnan(lower[1, 0, 0]))
    assert bool(jnp.isnan(ours[2]).any())


def test_empty_matrices():
    assert compiled(jnp.linalg.cholesky)(jnp.zeros((4, 0, 0))).shape == (4, 0, 0)


def test_numpyros_densities_of_batches_do_without_lapack():
    precision, value = spd(jr.key(0), 7, 3), jr.normal(jr.key(1), (7, 3))

    def slope(precision):
        return jax.grad(lambda p: dist.MultivariateNormal(0.0, precision_matrix=p).log_prob(value).sum())(precision)

    np.testing.assert_allclose(compiled(slope)(precision), slope(precision), rtol=1e-9, atol=1e-9)
    assert calls_lapack(slope, precision)
    assert not calls_lapack(batches_without_lapack(slope), precision)


def test_one_matrix_stays_with_lapack_unless_it_serves_many():
    matrix = spd(jr.key(0), 3)
    assert calls_lapack(batches_without_lapack(jnp.linalg.cholesky), matrix)
    many = jr.normal(jr.key(1), (3, 50))
    assert not calls_lapack(batches_without_lapack(lambda m, b: solve_triangular(m, b, lower=True)), matrix, many)


def test_a_loop_under_vmap_ends_for_each_on_its_own():
    def function(matrix, limit):
        def body(carry):
            count, total = carry
            return count + 1, jnp.linalg.cholesky(matrix + total @ total.T)

        return jax.lax.while_loop(lambda carry: carry[0] < limit, body, (0, jnp.zeros_like(matrix)))

    arguments = spd(jr.key(0), 3, 2), jnp.array([1, 4, 2])
    together, one_by_one = compiled(jax.vmap(function))(*arguments), jax.vmap(function)(*arguments)
    assert not calls_lapack(batches_without_lapack(jax.vmap(function)), *arguments)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-9), together, one_by_one)


def test_constants_come_back_as_arrays():
    found = compiled(lambda x: {"number": jnp.asarray(2.0), "whole": jnp.int32(3), "array": x})(jnp.ones(2))
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(found))
    assert found["whole"].dtype == jnp.int32 and float(found["number"]) == 2.0


def test_what_is_no_array_passes_through():
    def function(model, scale):
        return model, {"name": "chol", "factor": scale * jnp.linalg.cholesky(model.matrix)}

    class Holder(eqx.Module):
        matrix: jax.Array
        label: str = eqx.field(static=True)

    model, found = compiled(function)(Holder(spd(jr.key(0), 2, 3), "a"), 2.0)
    assert model.label == "a" and found["name"] == "chol"
    np.testing.assert_allclose(found["factor"], 2 * jnp.linalg.cholesky(model.matrix), rtol=1e-12)


def test_a_function_is_traced_once():
    count = 0

    def function(x):
        nonlocal count
        count += 1
        return jnp.linalg.cholesky(x) if x.ndim > 2 else x

    run = compiled(function)
    for shape in ((2, 2), (2, 2), (3, 2, 2), (3, 2, 2)):
        run(jnp.broadcast_to(jnp.eye(2), shape))
    assert count == 2
