import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_checks import (
    assert_close,
    check_distribution,
    check_draws,
    check_extreme,
    check_kl,
    check_moments,
    check_perturbed,
)

from vbss import hermitian
from vbss.distributions import ComplexInverseWishart as Distribution
from vbss.families import ComplexInverseWishart, statistics_family, value_family

FAMILY, SIZE = ComplexInverseWishart(), 3


def inverse_wishart(seed, excess=(1.0, 2.0, 40.0)):
    """Three members, of nu = M - 1 + excess."""
    root = np.random.default_rng(seed).standard_normal((3, SIZE, SIZE + 2, 2)) @ [1, 1j]
    scale = jnp.asarray(root @ root.conj().swapaxes(-1, -2) + 0.2 * np.eye(SIZE))
    return {"precision": -hermitian.pack(scale), "log_determinant": -(2 * SIZE - 1 + jnp.asarray(excess))}


ONE, OTHER = inverse_wishart(0), inverse_wishart(1, excess=(1.3, 0.7, 9.0))


@jax.jit
def statistics(value):
    precision, log_determinant = hermitian.inverse_and_log_determinant(hermitian.pack(value))
    return {"precision": precision, "log_determinant": log_determinant}


def test_means_natural_parameters_and_entropy():
    check_moments(FAMILY, ONE)
    check_moments(FAMILY, inverse_wishart(0, excess=(0.1, 0.3, 3.0)))


def test_kl():
    check_kl(FAMILY, ONE, OTHER)


def test_draws():
    check_draws(FAMILY, ONE, statistics)


def test_distribution():
    check_distribution(FAMILY, ONE, statistics)


def test_the_mode():
    mode = FAMILY.mode(ONE)
    assert_close(mode, hermitian.unpack(FAMILY.distribution(ONE).packed_mode), 1e-12)
    assert_close(FAMILY.mode_statistics(ONE), statistics(mode), 1e-9)
    best = FAMILY.inner(ONE, FAMILY.mode_statistics(ONE))
    noise = np.random.default_rng(5).standard_normal((*mode.shape, 2)) @ [1, 1j]
    for step in (0.01, -0.01):
        factor = np.eye(SIZE) + step * noise
        aside = factor @ np.asarray(mode) @ factor.conj().swapaxes(-1, -2)
        assert (FAMILY.inner(ONE, statistics(jnp.asarray(aside))) < best).all()


def test_perturbed():
    check_perturbed(FAMILY, ONE)


@pytest.mark.parametrize("excess", [0.06, 1e7])
def test_single_precision_at_extreme_degrees_of_freedom(excess):
    check_extreme(FAMILY, inverse_wishart(3, excess=(excess,) * 3))


def test_natural_parameters_of_extreme_means():
    size = 4
    log_determinant = 1 - 2 * size - jnp.array([0.02, 0.3, 1.0, 30.0, 1e3, 1e5])
    precision = -jnp.broadcast_to(hermitian.packed_identity(size, jnp.dtype("float64")), (6, size**2))
    natural = {"precision": precision, "log_determinant": log_determinant}
    again = jax.jit(lambda eta: FAMILY.natural(FAMILY.means(eta)))(natural)
    np.testing.assert_allclose(again["log_determinant"], log_determinant, rtol=1e-7)
    assert_close(again["precision"], natural["precision"], 1e-6)


def test_the_family_of_a_latent():
    distribution = Distribution(jnp.array([[3.0], [4.0]]), hermitian.packed_identity(2, jnp.dtype("float64")))
    assert statistics_family(distribution) == FAMILY
    assert value_family(distribution) is None
    natural = FAMILY.natural_of(distribution)
    assert natural["precision"].shape == (2, 1, 4)
    np.testing.assert_allclose(natural["log_determinant"], [[-5], [-6]])
