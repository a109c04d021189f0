import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import special, stats

from vbss import hermitian
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, hermitian_positive_definite

unpack = jax.jit(hermitian.unpack)
packed = jax.jit(hermitian.pack)
density = jax.jit(lambda distribution, value: distribution.log_prob(value))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def random_positive(seed, size, batch=()):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((*batch, size, size + 2, 2)) @ [1, 1j]
    return root @ root.conj().swapaxes(-1, -2) / size


def textbook_log_prob(nu, scale, value):
    """Density on the M^2 real coordinates (H_ii, Re H_ij, Im H_ij), i < j."""
    size = value.shape[-1]
    normaliser = size * (size - 1) / 2 * np.log(np.pi) + special.gammaln(nu - np.arange(size)).sum()
    log_determinant = np.linalg.slogdet(scale)[1], np.linalg.slogdet(value)[1]
    trace = np.trace(scale @ np.linalg.inv(value), axis1=-2, axis2=-1).real
    return nu * log_determinant[0] - normaliser - (nu + size) * log_determinant[1] - trace


def test_size_one_is_an_inverse_gamma():
    nu, scale, value = np.array([0.7, 2.5, 9.0]), np.array([0.3, 1.0, 20.0]), np.array([0.1, 0.9, 3.0])
    log_prob = density(ComplexInverseWishart(nu, scale[:, None]), value[:, None, None] + 0j)
    np.testing.assert_allclose(log_prob, stats.invgamma.logpdf(value, nu, scale=scale), rtol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_log_prob_is_the_textbook_density(size):
    nu, scale, value = size + 0.5, random_positive(1, size), random_positive(2, size)
    log_prob = density(ComplexInverseWishart(nu, packed(scale)), value)
    np.testing.assert_allclose(log_prob, textbook_log_prob(nu, scale, value), rtol=1e-12)


def test_the_density_of_size_two_integrates_to_one():
    # With Psi = I the density depends on H_11 = e^a, H_22 = e^b and |H_12|^2 = H_11 H_22 (1 - u) alone, and
    # dH = (2 pi / 2) (H_11 H_22)^2 du da db.
    a, width = np.linspace(-4, 9, 61, retstep=True)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    first, second, share = np.meshgrid(np.exp(a), np.exp(a), (nodes + 1) / 2, indexing="ij")
    cross = np.sqrt(first * second * (1 - share))
    value = np.stack([np.stack([first, cross], -1), np.stack([cross, second], -1)], -2) + 0j
    log_prob = density(ComplexInverseWishart(3.5, packed(np.eye(2) + 0j)), value)
    integral = (np.exp(log_prob) * np.pi * (first * second) ** 2 * weights / 2).sum() * width**2
    assert integral == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [2, 3])
def test_the_density_integrates_to_one_by_importance_sampling(size):
    # H = L L^H with an independent proposal for L; dH = 2^M prod_i L_ii^(2 (M - i) + 1) dL, i = 1..M.
    nu = size + 6.0
    scale = nu * (np.eye(size) + 0.2j * (np.tri(size, k=-1) - np.tri(size, k=-1).T))
    rng = np.random.default_rng(0)
    num, rows, columns = 40_000, *np.tril_indices(size, -1)
    log_diagonal = 0.25 * rng.standard_normal((num, size))
    below = 0.3 * rng.standard_t(5, (num, len(rows), 2))
    lower = np.zeros((num, size, size), complex)
    lower[:, np.arange(size), np.arange(size)] = np.exp(log_diagonal)
    lower[:, rows, columns] = below @ [1, 1j]
    proposal = stats.norm.logpdf(log_diagonal, scale=0.25).sum(-1) - log_diagonal.sum(-1)
    proposal += stats.t.logpdf(below, 5, scale=0.3).sum((-2, -1))
    jacobian = size * np.log(2) + log_diagonal @ (2 * (size - np.arange(1, size + 1)) + 1)
    log_prob = density(ComplexInverseWishart(nu, packed(scale)), lower @ lower.conj().swapaxes(-1, -2))
    weight = np.exp(np.asarray(log_prob) + jacobian - proposal)
    error = weight.std() / np.sqrt(num)
    assert error < 0.03
    assert abs(weight.mean() - 1) < 4 * error


@pytest.mark.parametrize("size", [1, 3])
def test_draws_have_the_known_moments(size):
    nu, scale, num = size + 5.0, random_positive(1, size), 20_000
    distribution = ComplexInverseWishart(nu, packed(scale))
    draws = np.asarray(draw(distribution, jr.key(0), (num,)))
    precision = np.linalg.inv(draws)
    log_determinant = np.linalg.slogdet(draws)[1]

    def assert_mean(samples, expected):
        parts = np.stack([samples.real, samples.imag])
        error = np.abs(parts.mean(1) - np.stack([expected.real, expected.imag]))
        assert (error <= 5 * parts.std(1) / np.sqrt(num) + 1e-12).all()

    np.testing.assert_allclose(distribution.mean, scale / (nu - size), rtol=1e-12)
    assert_mean(draws, scale / (nu - size))
    assert_mean(precision, nu * np.linalg.inv(scale))
    assert_mean(log_determinant, np.linalg.slogdet(scale)[1] - special.digamma(nu - np.arange(size)).sum())
    # The spread: Var log|H| = sum_i trigamma(nu - i).
    variance = special.polygamma(1, nu - np.arange(size)).sum()
    assert np.var(log_determinant) == pytest.approx(variance, rel=0.06)


def test_shapes():
    distribution = ComplexInverseWishart(jnp.array([[4.0], [5.0]]), packed(random_positive(0, 2, (3,))))
    assert distribution.batch_shape == (2, 3) and distribution.event_shape == (2, 2)
    draws = draw(distribution, jr.key(0), (5,))
    assert draws.shape == (5, 2, 3, 2, 2) and draws.dtype == complex
    log_prob = density(distribution, draws)
    assert log_prob.shape == (5, 2, 3) and log_prob.dtype == float
    scales = np.asarray(unpack(distribution.packed_scale))
    for j, nu in enumerate([4.0, 5.0]):
        expected = [textbook_log_prob(nu, scales[i], np.asarray(draws[0, j, i])) for i in range(3)]
        np.testing.assert_allclose(log_prob[0, j], expected, rtol=1e-10)
    assert distribution.mean.shape == (2, 3, 2, 2)
    assert distribution.packed_mode.shape == (2, 3, 4)


def test_single_precision_is_kept():
    distribution = ComplexInverseWishart(4.0, packed(random_positive(0, 2)).astype(jnp.float32))
    draws = draw(distribution, jr.key(0), (20,))
    assert draws.dtype == jnp.complex64 and density(distribution, draws).dtype == jnp.float32
    assert distribution.mean.dtype == jnp.complex64
    assert hermitian_positive_definite(draws).all()


def test_expand_and_mask():
    distribution = ComplexInverseWishart(4.0, packed(random_positive(0, 1)))
    expanded = distribution.expand((3,))
    draws = draw(expanded, jr.key(0), ())
    assert draws.shape == (3, 1, 1) and not jnp.allclose(draws[0], draws[1])
    log_prob = density(expanded, draws)
    np.testing.assert_allclose(log_prob, density(distribution, draws), rtol=1e-12)
    mask = jnp.array([True, False, True])
    broken = draws * np.array([1, -1, 1])[:, None, None]  # what is masked may be anything
    np.testing.assert_allclose(density(expanded.mask(mask), broken), np.where(mask, log_prob, 0), rtol=1e-12)


def test_vmap_jit_and_pytree():
    nu, scale, value = np.array([4.0, 5.0, 6.0]), random_positive(0, 2, (3,)), random_positive(1, 2, (3,))
    distribution = ComplexInverseWishart(nu, packed(scale))
    expected = [textbook_log_prob(n, s, v) for n, s, v in zip(nu, scale, value, strict=True)]
    mapped = jax.jit(jax.vmap(lambda n, s, v: ComplexInverseWishart(n, s).log_prob(v)))(nu, packed(scale), value)
    np.testing.assert_allclose(mapped, expected, rtol=1e-12)
    leaves, structure = jax.tree.flatten(distribution)
    assert len(leaves) == 2
    again = jax.tree.unflatten(structure, leaves)
    assert again.batch_shape == (3,) and again.event_shape == (2, 2)
    np.testing.assert_allclose(density(again, value), expected, rtol=1e-12)


def test_gradient():
    nu, scale, value = 4.5, random_positive(1, 3), random_positive(2, 3)
    gradient = jax.jit(jax.grad(lambda n, s, v: ComplexInverseWishart(n, s).log_prob(v), (0, 1)))
    of_nu, of_scale = gradient(nu, packed(scale), value)
    log_ratio = np.linalg.slogdet(scale)[1] - np.linalg.slogdet(value)[1]
    np.testing.assert_allclose(of_nu, log_ratio - special.digamma(nu - np.arange(3)).sum(), rtol=1e-10)
    expected = nu * np.linalg.inv(scale) - np.linalg.inv(value)
    np.testing.assert_allclose(of_scale, packed(expected), rtol=1e-10, atol=1e-10)


def test_the_mode_is_stationary():
    distribution = ComplexInverseWishart(4.5, packed(random_positive(1, 3)))
    gradient = jax.jit(jax.grad(lambda p: distribution.log_prob(hermitian.unpack(p))))
    assert jnp.abs(gradient(distribution.packed_mode)).max() < 1e-10
    assert jnp.abs(gradient(1.1 * distribution.packed_mode)).max() > 1e-2


def test_the_density_is_linear_in_its_statistics():
    distribution = ComplexInverseWishart(jnp.array([4.0, 5.0, 6.0]), packed(random_positive(0, 2)))
    values = random_positive(1, 2, (2, 3))
    statistics = jax.jit(distribution.sufficient_statistics)(values)
    np.testing.assert_allclose(unpack(statistics["precision"]), np.linalg.inv(values), rtol=1e-10)
    np.testing.assert_allclose(statistics["log_determinant"], np.linalg.slogdet(values)[1], rtol=1e-10)
    linear_form = jax.jit(distribution.expected_log_prob)
    log_prob = density(distribution, values)
    np.testing.assert_allclose(linear_form(statistics), log_prob, rtol=1e-12)
    mean = jax.tree.map(lambda s: np.asarray(s).mean(0), statistics)
    np.testing.assert_allclose(linear_form(mean), np.asarray(log_prob).mean(0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("magnitude", [1e-12, 1.0, 1e9])
def test_the_support(dtype, magnitude):
    good = jnp.asarray(magnitude * random_positive(0, 4, (200,)), dtype)
    assert hermitian_positive_definite(good).all()
    assert not hermitian_positive_definite(-good).any()
    assert not hermitian_positive_definite(good.at[..., 0, 1].add(1e-2 * magnitude)).any()
    assert not hermitian_positive_definite(good.at[..., 0, 0].add(1e-2j * magnitude)).any()
    assert not hermitian_positive_definite(jnp.zeros((2, 2), dtype))
    assert not hermitian_positive_definite(jnp.full((2, 2), jnp.nan, dtype))
    feasible = hermitian_positive_definite.feasible_like(good)
    assert feasible.shape == good.shape and feasible.dtype == dtype and hermitian_positive_definite(feasible).all()


def test_rounding_is_no_reason_to_be_refused():
    value = random_positive(0, 3)
    value[0, 1], value[1, 0] = 1e-9 + 1e-9j, 1e-9 - 1.1e-9j  # a product of matrices leaves such entries in float32
    assert hermitian_positive_definite(jnp.asarray(value))


def test_validation_warns_outside_the_support():
    distribution = ComplexInverseWishart(4.0, packed(random_positive(0, 2)), validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        distribution.log_prob(-jnp.eye(2) + 0j)


@pytest.mark.parametrize(
    ("nu", "scale", "message"),
    [
        (4.0, np.ones(5), r"packed_scale .* \(5,\)"),
        (4.0, 2.0, r"packed_scale .* \(\)"),
        (4.0, np.eye(4) + 0j, "packed_scale .* real"),
    ],
)
def test_a_scale_that_is_not_packed_is_refused(nu, scale, message):
    with pytest.raises(ValueError, match=message):
        ComplexInverseWishart(nu, scale)
