import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vbss import hermitian
from vbss.hermitian import inverse_and_log_determinant, packed_identity

pack, unpack, pack_outer = jax.jit(hermitian.pack), jax.jit(hermitian.unpack), jax.jit(hermitian.pack_outer)


def random_positive(seed, size, batch=(), condition=None):
    """Hermitian positive definite matrices, of a given condition number if asked."""
    rng = np.random.default_rng(seed)
    shape = (*batch, size, size)
    root = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    if condition is None:
        return root @ root.conj().swapaxes(-1, -2) / size + 0.1 * np.eye(size)
    basis = np.linalg.qr(root)[0]
    eigenvalues = np.geomspace(1.0, 1.0 / condition, size)
    return (basis * eigenvalues) @ basis.conj().swapaxes(-1, -2)


def complex_arrays(*shape):
    entries = hnp.arrays(np.float64, (2, *shape), elements=st.floats(-1e3, 1e3))
    return entries.map(lambda pair: pair[0] + 1j * pair[1])


@st.composite
def matrices_and_vectors(draw):
    size = draw(st.sampled_from([1, 3]))
    a, b = draw(complex_arrays(size, size)), draw(complex_arrays(size, size))
    return a + a.conj().T, b + b.conj().T, draw(complex_arrays(size))


@given(matrices_and_vectors())
@settings(max_examples=25)
def test_packing_is_an_isometry_with_an_inverse(drawn):
    a, b, x = drawn
    largest = max(np.abs(a).max(), np.abs(b).max(), 1.0), np.abs(x).max()
    packed, packed_b, outer = np.asarray(pack(a)), np.asarray(pack(b)), np.asarray(pack_outer(x))
    assert packed.shape == (a.size,) and packed.dtype == np.float64
    np.testing.assert_allclose(unpack(packed), a, rtol=1e-14)
    np.testing.assert_allclose(packed @ packed_b, np.trace(a @ b).real, rtol=0, atol=1e-12 * largest[0] ** 2)
    np.testing.assert_allclose(outer, pack(np.outer(x, x.conj())), rtol=0, atol=1e-14 * largest[1] ** 2)
    np.testing.assert_allclose(
        packed @ outer, (x.conj() @ a @ x).real, rtol=0, atol=1e-12 * largest[0] * largest[1] ** 2
    )


def test_the_order_of_the_coordinates():
    matrix = jnp.array([[1, 4 + 7j, 5 + 8j], [4 - 7j, 2, 6 + 9j], [5 - 8j, 6 - 9j, 3]])
    root = np.sqrt(2)
    expected = [1, 2, 3, 4 * root, 5 * root, 6 * root, 7 * root, 8 * root, 9 * root]
    np.testing.assert_allclose(pack(matrix), expected, rtol=1e-15)


def test_only_the_upper_triangle_is_read():
    matrix = jnp.asarray(random_positive(0, 3))
    np.testing.assert_array_equal(pack(matrix), pack(jnp.triu(matrix)))


@pytest.mark.parametrize("dtype", [jnp.dtype("float32"), jnp.dtype("float64")])
@pytest.mark.parametrize("size", [1, 3])
def test_the_packed_identity(size, dtype):
    identity = packed_identity(size, dtype)
    assert identity.dtype == dtype
    np.testing.assert_array_equal(unpack(identity), np.eye(size))


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_leading_axes_and_precision_are_kept(batch):
    matrix = jnp.asarray(random_positive(0, 3, batch), jnp.complex64)
    assert pack(matrix).shape == (*batch, 9) and pack(matrix).dtype == jnp.float32
    assert unpack(pack(matrix)).shape == matrix.shape and unpack(pack(matrix)).dtype == jnp.complex64
    assert pack_outer(matrix[..., 0]).shape == (*batch, 9) and pack_outer(matrix[..., 0]).dtype == jnp.float32
    inverted, log_determinant = inverse_and_log_determinant(pack(matrix))
    assert inverted.shape == (*batch, 9) and inverted.dtype == jnp.float32
    assert log_determinant.shape == batch and log_determinant.dtype == jnp.float32


@pytest.mark.parametrize("size", range(1, 10))  # nine rows go to LAPACK
def test_inverse_and_log_determinant(size):
    matrix = random_positive(size, size, (10,))
    inverted, log_determinant = inverse_and_log_determinant(pack(jnp.asarray(matrix)))
    expected = np.linalg.inv(matrix)
    np.testing.assert_allclose(unpack(inverted), expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [4, 9])
def test_single_precision_on_ill_conditioned_matrices(size):
    condition = 1e4
    matrix = random_positive(size, size, (50,), condition).astype(np.complex64)
    matrix = (matrix + matrix.conj().swapaxes(-1, -2)) / 2
    inverted, log_determinant = inverse_and_log_determinant(pack(jnp.asarray(matrix)))
    assert inverted.dtype == jnp.float32
    precise = matrix.astype(complex)
    expected = np.linalg.inv(precise)
    error = np.linalg.norm(np.asarray(unpack(inverted)) - expected, axis=(-2, -1)) / np.linalg.norm(
        expected, axis=(-2, -1)
    )
    assert error.max() < condition * np.finfo(np.float32).eps
    expected_log = np.linalg.slogdet(precise)[1]
    np.testing.assert_allclose(log_determinant, expected_log, rtol=0, atol=condition * np.finfo(np.float32).eps)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9])
def test_matrices_that_are_not_positive_definite_give_nan(size):
    matrix = random_positive(0, size, (10,))
    matrix[np.arange(9), np.arange(9) % size, np.arange(9) % size] -= 100  # each pivot in turn is the first to fail
    matrix[9] = 0
    inverted, log_determinant = inverse_and_log_determinant(pack(jnp.asarray(matrix)))
    assert np.isnan(inverted).all()
    assert np.isnan(log_determinant).all()


def test_a_bad_matrix_does_not_harm_its_neighbours():
    matrix = random_positive(0, 3, (3,))
    matrix[1] *= -1
    inverted, log_determinant = inverse_and_log_determinant(pack(jnp.asarray(matrix)))
    np.testing.assert_array_equal(np.isnan(log_determinant), [False, True, False])
    np.testing.assert_allclose(unpack(inverted[2]), np.linalg.inv(matrix[2]), rtol=1e-10)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_gradient(size):
    matrix, weight = random_positive(1, size), random_positive(2, size)
    packed, packed_weight = pack(jnp.asarray(matrix)), pack(jnp.asarray(weight))
    of_inverse = jax.jit(jax.grad(lambda p: inverse_and_log_determinant(p)[0] @ packed_weight))(packed)
    of_log_determinant = jax.jit(jax.grad(lambda p: inverse_and_log_determinant(p)[1]))(packed)
    precision = np.linalg.inv(matrix)
    np.testing.assert_allclose(unpack(of_inverse), -precision @ weight @ precision, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(unpack(of_log_determinant), precision, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [2, 9])
def test_vmap(size):
    packed = pack(jnp.asarray(random_positive(0, size, (2, 3))))
    one_by_one = jax.jit(jax.vmap(jax.vmap(inverse_and_log_determinant), in_axes=1, out_axes=1))(packed)
    for mapped, batched in zip(one_by_one, inverse_and_log_determinant(packed), strict=True):
        np.testing.assert_allclose(mapped, batched, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(jax.vmap(unpack)(packed), unpack(packed))


def test_a_draw_is_what_pack_outer_says():
    vectors = np.random.default_rng(0).standard_normal((4, 3, 2)) @ [1, 1j]
    outer = vectors[:, :, None] * vectors[:, None].conj()
    np.testing.assert_allclose(unpack(pack_outer(vectors)), outer, rtol=1e-13, atol=1e-13)
