import jax
import jax.random as jr
import numpy as np
import numpyro
import pytest
from numpyro.infer import NUTS
from scipy import special

from vbss.context import relaxed_promotion
from vbss.distributions import ComplexAngularCentralGaussian
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


def directions(seed, *shape):
    vectors = complex_numbers(seed, *shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sphere_area(size):
    return 2 * np.pi**size / special.gamma(size)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_without_a_preferred_direction_it_is_uniform(size):
    log_prob = density(ComplexAngularCentralGaussian(3.0 * np.eye(size)), directions(0, 5, size))
    np.testing.assert_allclose(log_prob, -np.log(sphere_area(size)), rtol=1e-12)


def test_the_density_of_size_two_integrates_to_one():
    # z = (cos t, sin t e^{ip}) up to a phase, with surface element sin t cos t dt dp d(phase).
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, p = np.meshgrid((nodes + 1) * np.pi / 4, 2 * np.pi * np.arange(40) / 40, indexing="ij")
    values = np.stack([np.cos(t) + 0j, np.sin(t) * np.exp(1j * p)], -1)
    log_prob = np.asarray(density(ComplexAngularCentralGaussian(positive(0, 2)), values))
    element = np.sin(t) * np.cos(t) * weights[:, None] * np.pi / 4 * (2 * np.pi / 40) * 2 * np.pi
    assert (np.exp(log_prob) * element).sum() == pytest.approx(1, rel=1e-8)


def test_the_density_of_size_three_integrates_to_one():
    log_prob = np.asarray(density(ComplexAngularCentralGaussian(positive(0, 3)), directions(1, 20_000, 3)))
    ratio = np.exp(log_prob) * sphere_area(3)
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.05 and abs(ratio.mean() - 1) < 4 * error


def test_neither_phase_nor_scale_matters():
    shape, value = positive(0, 3), directions(1, 5, 3)
    log_prob = density(ComplexAngularCentralGaussian(shape), value)
    np.testing.assert_allclose(density(ComplexAngularCentralGaussian(7 * shape), value), log_prob, rtol=1e-12)
    turned = value * np.exp(1j * np.arange(5.0))[:, None]
    np.testing.assert_allclose(density(ComplexAngularCentralGaussian(shape), turned), log_prob, rtol=1e-12)


def test_a_real_direction_is_a_complex_one():
    distribution, value = ComplexAngularCentralGaussian(positive(0, 3)), np.array([0.6, 0, -0.8])
    np.testing.assert_array_equal(density(distribution, value), density(distribution, value + 0j))


def test_draws_solve_the_likelihood_equation():
    # B = M E[z z^H / (z^H B^-1 z)], whose sample version defines the maximum-likelihood estimate.
    shape = positive(0, 3)
    draws = np.asarray(draw(ComplexAngularCentralGaussian(shape), jr.key(0), (20_000,)))
    np.testing.assert_allclose(np.linalg.norm(draws, axis=-1), 1, rtol=1e-12)
    power = np.einsum("ni,ij,nj->n", draws.conj(), np.linalg.inv(shape), draws).real
    scatter = 3 * draws[:, :, None] * draws[:, None].conj() / power[:, None, None]
    for part in (np.real, np.imag):
        error = np.abs(part(scatter).mean(0) - part(shape))
        assert (error <= 5 * part(scatter).std(0) / np.sqrt(len(draws)) + 1e-12).all()


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_a_shape_that_is_not_square_is_refused(shape):
    with pytest.raises(InputError, match="shape_matrix must end in two equal axes"):
        ComplexAngularCentralGaussian(np.ones(shape))


@pytest.mark.parametrize("matrix", [[[1, 1j], [1j, 2]], [[1, 2], [2, 1]]])
def test_a_shape_that_is_not_hermitian_positive_definite_is_refused(matrix):
    with pytest.raises(ValueError, match="invalid shape_matrix"):
        ComplexAngularCentralGaussian(np.array(matrix), validate_args=True)


def test_a_latent_direction_is_refused_with_the_way_out():
    def program():
        numpyro.sample("z", ComplexAngularCentralGaussian(np.eye(2)))

    with pytest.raises(NotImplementedError, match="hand on its direction"):
        NUTS(program).init(jr.key(0), 0, None, (), {})
