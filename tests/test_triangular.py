import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.triangular import cholesky, solve_lower, solve_upper


@pytest.mark.parametrize("size", [1, 3, 7])
def test_factors_solves_and_gradients_are_lapacks(size):
    root = jr.normal(jr.key(0), (2, 3, size, size + 2))
    matrix, right = root @ jnp.swapaxes(root, -1, -2), jr.normal(jr.key(1), (2, 3, size, 2))

    def ours(matrix, right):
        factor = cholesky(matrix)
        return factor, solve_lower(factor, right), solve_upper(factor, right)

    def lapacks(matrix, right):
        factor = jnp.linalg.cholesky(matrix)
        solve = jax.scipy.linalg.solve_triangular
        return factor, solve(factor, right, lower=True), solve(factor, right, trans=1, lower=True)

    for one, other in zip(ours(matrix, right), lapacks(matrix, right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    slopes = (jax.grad(lambda m, f=f: sum((part**2).sum() for part in f(m, right)))(matrix) for f in (ours, lapacks))
    np.testing.assert_allclose(*slopes, rtol=1e-7, atol=1e-7)


def test_a_matrix_that_is_not_positive_definite_has_no_factor():
    assert jnp.isnan(cholesky(jnp.array([[1.0, 2.0], [2.0, 1.0]]))).any()
