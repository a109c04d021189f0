import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from family_checks import (
    assert_close,
    check_distribution,
    check_draws,
    check_extreme,
    check_kl,
    check_mode,
    check_moments,
    check_perturbed,
    check_value_rules,
)
from scipy import special

from vbss.context import relaxed_promotion
from vbss.families import Gamma, Wishart, value_family

FAMILY, SIZE = Wishart(), 3


def wishart(seed, excess=(1.5, 2.0, 40.0)):
    """Three members, of nu = D - 1 + excess."""
    root = np.random.default_rng(seed).standard_normal((3, SIZE, SIZE + 2))
    return {
        "linear": jnp.asarray(-root @ root.swapaxes(-1, -2) - 0.2 * np.eye(SIZE)),
        "log": jnp.asarray(excess) / 2 - 1,
    }


ONE, OTHER = wishart(0), wishart(1, excess=(1.3, 0.7, 9.0))


def test_means_natural_parameters_and_entropy():
    check_moments(FAMILY, ONE)
    check_moments(FAMILY, wishart(0, excess=(0.1, 0.3, 3.0)))


def test_kl():
    check_kl(FAMILY, ONE, OTHER)


def test_rules():
    check_value_rules(FAMILY, ONE, OTHER)


def test_draws():
    check_draws(FAMILY, ONE)


def test_distribution():
    check_distribution(FAMILY, ONE)


def test_mode_of_a_member_that_has_one():
    check_mode(FAMILY, wishart(2, excess=(3.0, 5.0, 40.0)), 1e-8)
    assert jnp.linalg.eigvalsh(FAMILY.mode(ONE)).min() > 0


def test_perturbed():
    check_perturbed(FAMILY, ONE)


@pytest.mark.parametrize("excess", [0.06, 1e7])
def test_single_precision_at_extreme_degrees_of_freedom(excess):
    check_extreme(FAMILY, wishart(3, excess=(excess,) * 3))


def test_size_one_is_a_gamma():
    log, rate = jnp.array([-0.9, 0.5, 30.0]), jnp.array([0.2, 1.0, 7.0])
    one, gamma = {"linear": -rate[:, None, None], "log": log}, {"linear": -rate, "log": log}

    @jax.jit
    def both():
        actual = FAMILY.points(one)[..., 0, 0], FAMILY.log_partition(one), FAMILY.entropy(one)
        return actual, (Gamma().points(gamma), Gamma().log_partition(gamma), Gamma().entropy(gamma))

    assert_close(*both(), 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_points_at_extreme_degrees_of_freedom(dtype):
    excess = np.array([0.1, 1.0, 1e4, 1e6])
    linear = -jnp.broadcast_to(jnp.eye(SIZE, dtype=dtype) / 2, (4, SIZE, SIZE))
    points = jax.jit(FAMILY.points)({"linear": linear, "log": jnp.asarray(excess / 2 - 1, dtype)})
    assert points.dtype == dtype
    nu, eps = excess + SIZE - 1, float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(points.mean(0), nu[:, None, None] * np.eye(SIZE), rtol=20 * eps, atol=0)
    # How far the points lie apart is what represents log|P| beside that of the mean.
    gap = special.digamma((nu[:, None] - np.arange(SIZE)) / 2).sum(-1) - SIZE * np.log(nu / 2)
    half_width = np.sqrt(-np.expm1(2 / SIZE * gap))
    above, below = np.asarray(points[..., 0, 0], np.float64) / nu
    np.testing.assert_allclose((above - below) / 2, half_width, rtol=0, atol=1e-10 + 10 * eps)


@pytest.mark.parametrize("size", [2, 16])
def test_natural_parameters_of_extreme_means(size):
    log = jnp.array([0.02, 0.3, 1.0, 30.0, 1e3, 1e5]) - 1
    natural = {"linear": -jnp.broadcast_to(jnp.eye(size), (6, size, size)), "log": log}
    again = jax.jit(lambda eta: FAMILY.natural(FAMILY.means(eta)))(natural)
    np.testing.assert_allclose(again["log"] + 1, log + 1, rtol=1e-7)


def test_the_family_of_a_latent():
    with relaxed_promotion():
        given = dist.Wishart(jnp.array([5.0, 7.0]), scale_tril=2 * jnp.eye(2))
        assert value_family(given) == FAMILY
        assert value_family(dist.WishartCholesky(5.0, scale_tril=jnp.eye(2))) is None
    natural = FAMILY.natural_of(given)
    np.testing.assert_allclose(natural["linear"], np.broadcast_to(-np.eye(2) / 8, (2, 2, 2)))
    np.testing.assert_allclose(natural["log"], [1, 2])
