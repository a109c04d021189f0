import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from family_checks import (
    assert_close,
    check_draws,
    check_extreme,
    check_kl,
    check_mode,
    check_moments,
    check_perturbed,
    check_value_rules,
)

from vbss.context import relaxed_promotion
from vbss.families import NormalWishart

FAMILY, SIZE = NormalWishart(), 2


def normal_wishart(seed, excess=(1.5, 2.0, 40.0)):
    """Three members as m, kappa, S / 2 and nu = D - 1 + excess, and their natural parameters."""
    rng = np.random.default_rng(seed)
    loc, kappa = rng.standard_normal((3, SIZE)), np.exp(rng.standard_normal(3))
    root = rng.standard_normal((3, SIZE, SIZE + 2))
    half_rate = root @ root.swapaxes(-1, -2) + 0.2 * np.eye(SIZE)
    natural = {
        "linear": kappa[:, None] * loc,
        "quadratic": -kappa / 2,
        "precision": -half_rate - kappa[:, None, None] * loc[:, :, None] * loc[:, None, :] / 2,
        "log": (np.asarray(excess) - 1) / 2,
    }
    return (loc, kappa, half_rate, np.asarray(excess) + SIZE - 1), jax.tree.map(jnp.asarray, natural)


PARTS, ONE = normal_wishart(0)
_, OTHER = normal_wishart(1, excess=(1.3, 0.7, 9.0))


def test_means_natural_parameters_and_entropy():
    check_moments(FAMILY, ONE)
    check_moments(FAMILY, normal_wishart(0, excess=(0.1, 0.3, 3.0))[1])


def test_kl():
    check_kl(FAMILY, ONE, OTHER)


def test_rules():
    check_value_rules(FAMILY, ONE, OTHER)


def test_draws_and_the_density_of_the_two_sites():
    values = jax.tree.map(lambda x: x[0], check_draws(FAMILY, ONE))
    loc, kappa, half_rate, nu = map(jnp.asarray, PARTS)

    @jax.jit
    def log_probs(values):
        marginal = dist.Wishart(nu, rate_matrix=2 * half_rate)
        conditional = dist.MultivariateNormal(loc, precision_matrix=kappa[:, None, None] * values[1])
        return FAMILY.inner(ONE, FAMILY.statistics(values)), marginal.log_prob(values[1]) + conditional.log_prob(
            values[0]
        )

    with relaxed_promotion():
        product, expected = log_probs(values)
    actual = product - FAMILY.log_partition(ONE)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_marginals():
    loc, kappa, half_rate, nu = PARTS
    with relaxed_promotion():
        student, wishart = FAMILY.distribution(ONE)
        assert_close(FAMILY.natural_of((student, wishart)), ONE, 1e-9)
        np.testing.assert_allclose(student.df, nu - SIZE + 1)
        np.testing.assert_allclose(wishart.mean, FAMILY.center(ONE)[1], rtol=1e-10)
    # The covariance of x is E[(kappa P)^-1] = S / (kappa (nu - D - 1)) where there is one.
    variance = 2 * np.diagonal(half_rate[2]) / (kappa[2] * (nu[2] - SIZE - 1))
    np.testing.assert_allclose(student.mean[2], loc[2])
    np.testing.assert_allclose(student.variance[2], variance)


def test_points_keep_the_precision_of_their_own():
    locs, precisions = jax.jit(FAMILY.points)(ONE)
    assert locs.shape == (4 * SIZE, 3, SIZE) and precisions.shape == (4 * SIZE, 3, SIZE, SIZE)
    loc, kappa, _, _ = PARTS
    deviation = np.asarray(locs) - loc
    square = np.einsum("pbi,pbij,pbj->pb", deviation, precisions, deviation)
    np.testing.assert_allclose(square, np.broadcast_to(SIZE / kappa, square.shape), rtol=1e-9)


def test_the_mode_is_that_of_both():
    _, natural = normal_wishart(2, excess=(3.0, 5.0, 40.0))
    check_mode(FAMILY, natural, 1e-8)


def test_perturbed():
    check_perturbed(FAMILY, ONE)


def test_kl_of_members_far_from_zero_in_single_precision():
    loc, kappa, half_rate = jnp.full((2,), 50.0), jnp.array(20.0), jnp.eye(2)

    def member(shift):
        linear = kappa * (loc + shift)
        outer = kappa * (loc + shift)[:, None] * (loc + shift)[None, :]
        natural = {"linear": linear, "quadratic": -kappa / 2, "precision": -half_rate - outer / 2, "log": 3.0 * kappa}
        return jax.tree.map(lambda x: x.astype(jnp.float32), natural)

    kl = jax.jit(FAMILY.kl)
    double = kl(*(jax.tree.map(lambda x: x.astype(jnp.float64), member(shift)) for shift in (0.0, 0.5)))
    np.testing.assert_allclose(kl(member(0.0), member(0.5)), double, rtol=0.05)


@pytest.mark.parametrize("excess", [0.06, 1e6])
def test_single_precision_at_extreme_degrees_of_freedom(excess):
    check_extreme(FAMILY, normal_wishart(3, excess=(excess,) * 3)[1])
