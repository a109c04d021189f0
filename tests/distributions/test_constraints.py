import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vbss.distributions import constraints

CASES = {
    "complex_scalar": ([0.0, 1 - 2j], [np.nan, 1j * np.inf, complex(1, -np.inf)]),
    "complex_vector": ([[0.0, 1 - 2j]], [[np.nan, 0], [0, 1j * np.inf]]),
    "complex_unit_vector": ([[1.0, 0], [0.6, 0.8j]], [[1, 1], [0.6, 0.79], [0, 0], [np.nan, 1]]),
    "complex_lower_cholesky": (
        [[[1.0, 0], [2 - 1j, 3]]],
        [[[1, 1], [0, 1]], [[-1, 0], [0, 1]], [[1j, 0], [0, 1]], [[0, 0], [0, 1]], [[1 + 1e-3j, 0], [0, 1]]],
    ),
    "packed_hermitian_positive_definite": (
        [[1.0, 2.0, 0.5, 0.5]],
        [[1.0, 1.0, 2.0, 0.0], [-1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ),
}


def in_single_precision(array):
    return array.astype(jnp.complex64 if jnp.iscomplexobj(array) else jnp.float32)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("single", [False, True])
def test_what_is_inside_and_what_is_not(name, single):
    constraint = getattr(constraints, name)
    inside, outside = (jnp.asarray(values) for values in CASES[name])
    if name.startswith("complex"):
        inside, outside = inside.astype(complex), outside.astype(complex)
    if single:
        inside, outside = in_single_precision(inside), in_single_precision(outside)
    assert constraint(inside).shape == inside.shape[: inside.ndim - constraint.event_dim]
    assert constraint(inside).all()
    assert not constraint(outside).any()
    feasible = constraint.feasible_like(outside)
    assert feasible.shape == outside.shape and feasible.dtype == outside.dtype and constraint(feasible).all()


@pytest.mark.parametrize("name", [*CASES, "hermitian_positive_definite", "log_weights"])
def test_a_pytree_without_leaves_that_equals_its_copy(name):
    constraint = getattr(constraints, name)
    leaves, structure = jax.tree.flatten(constraint)
    assert not leaves
    assert jax.tree.unflatten(structure, leaves) == constraint
    assert constraint != constraints.complex_scalar or name == "complex_scalar"
