import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from vbss.context import relaxed_promotion
from vbss.distributions import ComplexMultivariateNormal, ComplexNormal
from vbss.errors import InputError

density = jax.jit(lambda distribution, value: distribution.log_prob(value))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def complex_numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal((*shape, 2)) @ [1, 1j]


def positive(seed, size):
    root = complex_numbers(seed, size, size + 2)
    return root @ root.conj().T / size


def stacked(matrix):
    """The real covariance of [Re x, Im x]."""
    return np.block([[matrix.real, -matrix.imag], [matrix.imag, matrix.real]]) / 2


def assert_mean(samples, expected):
    error = np.abs(samples.mean(0) - expected)
    assert (error <= 5 * samples.std(0) / np.sqrt(len(samples)) + 1e-12).all()


def test_the_scalar_density_is_that_of_two_real_normals():
    loc, scale, value = complex_numbers(0, 3), np.array([0.2, 1.0, 7.0]), complex_numbers(1, 3)
    parts = stats.norm(loc.real, scale / np.sqrt(2)), stats.norm(loc.imag, scale / np.sqrt(2))
    expected = parts[0].logpdf(value.real) + parts[1].logpdf(value.imag)
    np.testing.assert_allclose(density(ComplexNormal(loc, scale), value), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix", "scale_tril"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_vector_density_is_that_of_the_stacked_real_normal(size, name):
    covariance, loc, value = positive(0, size), complex_numbers(1, size), complex_numbers(2, 5, size)
    matrices = {
        "covariance_matrix": covariance,
        "precision_matrix": np.linalg.inv(covariance),
        "scale_tril": np.linalg.cholesky(covariance),
    }
    distribution = ComplexMultivariateNormal(loc, **{name: matrices[name]})
    real = stats.multivariate_normal(np.r_[loc.real, loc.imag], stacked(covariance))
    expected = real.logpdf(np.concatenate([value.real, value.imag], -1))
    np.testing.assert_allclose(density(distribution, value), expected, rtol=1e-10)
    for attribute, matrix in matrices.items():
        np.testing.assert_allclose(getattr(distribution, attribute), matrix, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(distribution.mean, loc)
    np.testing.assert_allclose(distribution.variance, np.diag(covariance).real, rtol=1e-10)


def test_scalar_draws_are_circular_with_the_known_moments():
    distribution = ComplexNormal(1 - 2j, 3.0)
    assert distribution.mean == 1 - 2j and distribution.variance == 9
    deviation = np.asarray(draw(distribution, jr.key(0), (20_000,))) - (1 - 2j)
    assert_mean(deviation.real, 0)
    assert_mean(deviation.imag, 0)
    assert_mean(np.abs(deviation) ** 2, 9)
    assert_mean((deviation**2).real, 0)
    assert_mean((deviation**2).imag, 0)
    assert stats.kstest(deviation.real, stats.norm(0, 3 / np.sqrt(2)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix"])
def test_vector_draws_have_the_known_moments(name):
    covariance, loc = positive(0, 3), complex_numbers(1, 3)
    matrix = covariance if name == "covariance_matrix" else np.linalg.inv(covariance)
    distribution = ComplexMultivariateNormal(loc, **{name: matrix})
    deviation = np.asarray(draw(distribution, jr.key(0), (20_000,))) - loc
    for part in (np.real, np.imag):
        assert_mean(part(deviation), 0)
        assert_mean(part(deviation[:, :, None] * deviation[:, None].conj()), part(covariance))
        assert_mean(part(deviation[:, :, None] * deviation[:, None]), 0)


def test_one_covariance_for_means_of_many_shapes():
    covariance, loc, value = positive(0, 2), complex_numbers(1, 4, 1, 2), complex_numbers(2, 5, 4, 3, 2)
    distribution = ComplexMultivariateNormal(loc, np.stack([covariance, 2 * covariance, 3 * covariance]))
    assert distribution.batch_shape == (4, 3)
    log_prob = density(distribution, value)
    for i, j in [(0, 0), (3, 2)]:
        real = stats.multivariate_normal(np.zeros(4), stacked((j + 1) * covariance))
        deviation = value[:, i, j] - loc[i, 0]
        expected = real.logpdf(np.concatenate([deviation.real, deviation.imag], -1))
        np.testing.assert_allclose(log_prob[:, i, j], expected, rtol=1e-10)
    assert distribution.mean.shape == distribution.variance.shape == (4, 3, 2)


def test_real_arguments_and_numbers_are_taken_for_complex_ones():
    assert draw(ComplexNormal(), jr.key(0), ()).dtype == complex
    assert draw(ComplexNormal(1, [2, 3]), jr.key(0), ()).dtype == complex
    assert ComplexMultivariateNormal([1, 2j], [[1, 1j], [-1j, 2]]).loc.dtype == complex
    distribution = ComplexMultivariateNormal(1, np.eye(2, dtype=np.float32))
    assert distribution.loc.shape == (2,) and distribution.loc.dtype == jnp.complex64
    value = np.array([0.5, 1.5])
    np.testing.assert_allclose(density(distribution, value), -0.5 - 2 * np.log(np.pi), rtol=1e-6)


def test_a_precision_near_the_single_precision_limit():
    basis = np.linalg.qr(complex_numbers(0, 3, 3))[0]
    precision = ((basis * [1, 1e2, 1e4]) @ basis.conj().T).astype(np.complex64)
    distribution = ComplexMultivariateNormal(0.0, precision_matrix=precision)
    value = complex_numbers(1, 20, 3) @ (basis / [1, 1e1, 1e2]).T
    expected = -np.einsum("ni,ij,nj->n", value.conj(), precision.astype(complex), value).real
    expected += np.linalg.slogdet(precision.astype(complex))[1] - 3 * np.log(np.pi)
    np.testing.assert_allclose(density(distribution, value.astype(np.complex64)), expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1j), "scale must be real, got complex128"),
        ((np.zeros(2), np.ones(3)), r"\(2,\) of loc and \(3,\) of scale"),
        ((0.0, -1.0), "invalid scale"),
        ((np.nan, 1.0), "invalid loc"),
    ],
)
def test_scalar_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ComplexNormal(*arguments, validate_args=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of .*, got none"),
        ({"covariance_matrix": np.eye(2), "scale_tril": np.eye(2)}, "got covariance_matrix, scale_tril"),
        ({"covariance_matrix": np.ones(2)}, r"covariance_matrix must end in two equal axes .* \(2,\)"),
        ({"precision_matrix": np.ones((2, 3))}, r"precision_matrix must end in two equal axes .* \(2, 3\)"),
        ({"scale_tril": np.ones((0, 0))}, r"scale_tril must end in two equal axes .* \(0, 0\)"),
        ({"loc": np.zeros(3), "scale_tril": np.eye(2)}, r"loc must end in an axis of 2 entries .* \(3,\)"),
        ({"loc": np.zeros(1), "scale_tril": np.eye(2)}, r"loc must end in an axis of 2 entries .* \(1,\)"),
        ({"loc": np.zeros((3, 2)), "scale_tril": np.ones((4, 2, 2))}, r"\(3,\) of loc and \(4,\) of scale_tril"),
    ],
)
def test_vector_arguments_of_wrong_shapes_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ComplexMultivariateNormal(**arguments)


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("covariance_matrix", [[1, 1j], [1j, 2]]),
        ("covariance_matrix", [[1, 2], [2, 1]]),
        ("precision_matrix", [[1j, 0], [0, 1]]),
        ("scale_tril", [[1, 1j], [0, 1]]),
        ("scale_tril", [[1j, 0], [0, 1]]),
        ("scale_tril", [[-1, 0], [0, 1]]),
    ],
)
def test_matrices_that_are_none_are_refused(name, matrix):
    with pytest.raises(ValueError, match=f"invalid {name}"):
        ComplexMultivariateNormal(0.0, **{name: np.array(matrix)}, validate_args=True)
