import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to
from numpyro.distributions.constraints import independent

from vbss.context import relaxed_promotion
from vbss.distributions import (
    ComplexLowerCholeskyTransform,
    ComplexVectorTransform,
    complex_lower_cholesky,
    complex_scalar,
    complex_unit_vector,
    complex_vector,
    hermitian_positive_definite,
)
from vbss.errors import InputError

SIZE = 3
# The constraint, the shapes of coordinates and value, and where the value's own real coordinates stand.
CASES = {
    "scalar": (complex_scalar, (2,), ()),
    "scalars": (independent(complex_scalar, 1), (SIZE, 2), (SIZE,)),
    "vector": (complex_vector, (2 * SIZE,), (SIZE,)),
    "factor": (complex_lower_cholesky, (SIZE**2,), (SIZE, SIZE)),
    "Hermitian": (hermitian_positive_definite, (SIZE**2,), (SIZE, SIZE)),
    "Hermitian of size one": (hermitian_positive_definite, (1,), (1, 1)),
}
every_case = pytest.mark.parametrize(("constraint", "real", "value"), CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def own_coordinates(value):
    """The real coordinates in which densities are expressed; those of a matrix are one triangle's."""
    if value.ndim < 2:
        return jnp.concatenate([value.real.ravel(), value.imag.ravel()])
    rows, columns = np.tril_indices(len(value), -1)
    below = value[rows, columns]
    return jnp.concatenate([jnp.diagonal(value).real, below.real, below.imag])


@every_case
def test_shapes_and_round_trip(constraint, real, value):
    transform = biject_to(constraint)
    assert transform.codomain == constraint
    assert transform.domain.event_dim == len(real) and transform.codomain.event_dim == len(value)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, *real)))
    y = jax.jit(lambda x: transform(x))(x)
    assert transform.forward_shape(x.shape) == y.shape == (2, 5, *value)
    assert transform.inverse_shape(y.shape) == x.shape
    assert y.dtype == complex and transform.codomain(y).all()
    np.testing.assert_allclose(jax.jit(lambda y: transform.inv(y))(y), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda x: transform(x)))(x[0]), y[0])


@every_case
def test_the_log_determinant_is_that_of_the_derivative(constraint, real, value):
    transform = biject_to(constraint)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, *real)))
    jacobian = jax.vmap(jax.jacfwd(lambda x: own_coordinates(transform(x.reshape(real)))))
    expected = np.linalg.slogdet(jax.jit(jacobian)(x.reshape(4, -1)))[1]
    log_determinant = jax.jit(lambda x: transform.log_abs_det_jacobian(x, transform(x)))(x)
    assert log_determinant.shape == (4,) and log_determinant.dtype == float
    np.testing.assert_allclose(log_determinant, expected, rtol=1e-10, atol=1e-12)


@every_case
def test_single_precision_is_kept(constraint, real, value):
    transform = biject_to(constraint)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, *real)), jnp.float32)
    y = transform(x)
    assert y.dtype == jnp.complex64 and transform.inv(y).dtype == jnp.float32
    assert transform.log_abs_det_jacobian(x, y).dtype == jnp.float32
    np.testing.assert_allclose(transform.inv(y), x, rtol=1e-3, atol=1e-3)


@every_case
def test_a_pytree_that_equals_its_copy(constraint, real, value):
    transform = biject_to(constraint)
    leaves, structure = jax.tree.flatten(transform)
    assert not leaves and jax.tree.unflatten(structure, leaves) == transform
    assert transform != biject_to(independent(constraint, 1))


def test_hermitian_coordinates_that_are_zero_give_the_identity():
    np.testing.assert_array_equal(biject_to(hermitian_positive_definite)(jnp.zeros(SIZE**2)), np.eye(SIZE))


@pytest.mark.parametrize("transform", [ComplexVectorTransform(), ComplexLowerCholeskyTransform()])
def test_a_number_of_coordinates_that_cannot_be_is_refused(transform):
    with pytest.raises(InputError, match=r"x must end in .* \(2, 3\)"):
        transform(jnp.zeros((2, 3)))


def test_the_unit_sphere_has_no_bijection():
    with pytest.raises(NotImplementedError, match="complex unit sphere has no bijection"):
        biject_to(complex_unit_vector)
