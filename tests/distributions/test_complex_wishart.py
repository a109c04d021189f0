import jax
import jax.random as jr
import numpy as np
import pytest
from scipy import special, stats

from vbss import hermitian
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, ComplexWishart
from vbss.errors import InputError

packed = jax.jit(hermitian.pack)
density = jax.jit(lambda distribution, value: distribution.log_prob(value))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def random_positive(seed, size, batch=()):
    root = np.random.default_rng(seed).standard_normal((*batch, size, size + 2, 2)) @ [1, 1j]
    return root @ root.conj().swapaxes(-1, -2) / size


def assert_mean(samples, expected):
    parts = np.stack([samples.real, samples.imag])
    error = np.abs(parts.mean(1) - np.stack([np.real(expected), np.imag(expected)]))
    assert (error <= 5 * parts.std(1) / np.sqrt(len(samples)) + 1e-12).all()


def test_size_one_is_a_gamma():
    nu, rate, value = np.array([0.7, 2.5, 9.0]), np.array([0.3, 1.0, 20.0]), np.array([0.1, 0.9, 3.0])
    log_prob = density(ComplexWishart(nu, rate[:, None]), value[:, None, None] + 0j)
    np.testing.assert_allclose(log_prob, stats.gamma.logpdf(value, nu, scale=1 / rate), rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_its_inverse_is_the_inverse_wishart_of_the_same_arguments(size):
    # d(H^-1) = |H|^-2M dH on the M^2 real coordinates.
    nu, rate, value = size + 0.5, packed(random_positive(0, size)), random_positive(1, size, (5,))
    inverse = density(ComplexInverseWishart(nu, rate), np.linalg.inv(value))
    expected = np.asarray(inverse) - 2 * size * np.linalg.slogdet(value)[1]
    np.testing.assert_allclose(density(ComplexWishart(nu, rate), value), expected, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 3])
def test_draws_have_the_known_moments(size):
    nu, rate, num = size + 0.5, random_positive(1, size), 20_000
    distribution = ComplexWishart(nu, packed(rate))
    draws = np.asarray(draw(distribution, jr.key(0), (num,)))
    scale = np.linalg.inv(rate)
    log_determinant = np.linalg.slogdet(draws)[1]
    np.testing.assert_allclose(distribution.mean, nu * scale, rtol=1e-10)
    assert_mean(draws, nu * scale)
    diagonal = np.diag(scale).real
    np.testing.assert_allclose(distribution.variance, nu * np.outer(diagonal, diagonal), rtol=1e-10)
    batch = ComplexWishart(np.array([[nu], [nu]]), packed(np.stack([rate] * 3)))
    assert batch.mean.shape == batch.variance.shape == (2, 3, size, size)
    assert_mean(np.abs(draws - nu * scale) ** 2, distribution.variance)
    assert_mean(log_determinant, special.digamma(nu - np.arange(size)).sum() - np.linalg.slogdet(rate)[1])
    variance = special.polygamma(1, nu - np.arange(size)).sum()
    assert np.var(log_determinant) == pytest.approx(variance, rel=0.06)


def test_a_scatter_of_normals_has_this_distribution():
    rng = np.random.default_rng(0)
    rate, num_samples, count = random_positive(1, 2), 4, 4000
    factor = np.linalg.cholesky(np.linalg.inv(rate))
    white = rng.standard_normal((count, 2, num_samples, 2)) @ [1, 1j] / np.sqrt(2)
    vectors = factor @ white
    scatter = vectors @ vectors.conj().swapaxes(-1, -2)
    draws = np.asarray(draw(ComplexWishart(num_samples, packed(rate)), jr.key(0), (count,)))
    for statistic in (
        lambda h: np.linalg.slogdet(h)[1],
        lambda h: h[:, 0, 0].real,
        lambda h: h[:, 0, 1].real,
        lambda h: h[:, 0, 1].imag,
        lambda h: np.linalg.eigvalsh(h)[:, 1],
    ):
        assert stats.ks_2samp(statistic(scatter), statistic(draws)).pvalue > 1e-3


def test_the_density_is_linear_in_its_statistics():
    distribution = ComplexWishart(np.array([4.0, 5.0, 6.0]), packed(random_positive(0, 2)))
    values = random_positive(1, 2, (2, 3))
    statistics = jax.jit(distribution.sufficient_statistics)(values)
    np.testing.assert_allclose(statistics["matrix"], packed(values), rtol=1e-12)
    np.testing.assert_allclose(statistics["log_determinant"], np.linalg.slogdet(values)[1], rtol=1e-10)
    mean = jax.tree.map(lambda s: np.asarray(s).mean(0), statistics)
    log_prob = np.asarray(density(distribution, values))
    np.testing.assert_allclose(jax.jit(distribution.expected_log_prob)(mean), log_prob.mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("nu", "rate", "message"),
    [
        (4.0, np.ones(5), r"packed_rate .* \(5,\)"),
        (4.0, 2.0, r"packed_rate .* \(\)"),
        (4.0, np.ones(0), r"packed_rate .* \(0,\)"),
        (4.0, np.eye(4) + 0j, "packed_rate .* real"),
        (4.0 + 0j, np.ones(1), "degrees_of_freedom must be real"),
        (np.ones(2), np.ones((3, 1)), r"\(2,\) of degrees_of_freedom and \(3,\) of packed_rate"),
        (1.0, np.array([1.0, 1.0, 0.0, 0.0]), r"degrees_of_freedom must be above M - 1 = 1, got 1\.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(nu, rate, message):
    with pytest.raises(InputError, match=message):
        ComplexWishart(nu, rate, validate_args=True)


def test_a_rate_that_is_not_positive_definite_is_refused():
    with pytest.raises(ValueError, match="invalid packed_rate"):
        ComplexWishart(4.0, np.array([1.0, 1.0, 2.0, 0.0]), validate_args=True)


@pytest.mark.parametrize("rate", [[1.0, 1, 0, 0], np.array([1, 1, 0, 0])])
def test_lists_and_whole_numbers_are_real_arrays(rate):
    assert draw(ComplexWishart(3, rate), jr.key(0), ()).dtype == complex
