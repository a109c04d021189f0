import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from family_checks import (
    check_distribution,
    check_draws,
    check_extreme,
    check_kl,
    check_moments,
    check_perturbed,
    check_value_rules,
)
from scipy import optimize

from vbss.context import relaxed_promotion
from vbss.families import Dirichlet, value_family

FAMILY = Dirichlet()


def dirichlet(*concentrations):
    return {"log": jnp.asarray(concentrations) - 1}


ONE = dirichlet((0.3, 1.0, 4.0, 0.1), (20.0, 3.0, 300.0, 2.0), (0.7, 0.7, 0.7, 0.7))
OTHER = dirichlet((1.5, 0.5, 2.0, 1.0), (8.0, 8.0, 90.0, 0.4), (3.0, 2.0, 1.0, 1.0))


def test_means_natural_parameters_and_entropy():
    check_moments(FAMILY, ONE)


def test_kl():
    with relaxed_promotion():
        expected = dist.kl_divergence(FAMILY.distribution(ONE), FAMILY.distribution(OTHER))
    check_kl(FAMILY, ONE, OTHER, expected)


def test_rules():
    check_value_rules(FAMILY, ONE, OTHER)


def test_draws():
    check_draws(FAMILY, ONE)


def test_distribution():
    check_distribution(FAMILY, ONE)


def test_perturbed():
    check_perturbed(FAMILY, ONE)


def test_single_precision_at_extreme_concentrations():
    natural = dirichlet((1e-3, 1e-3, 1e-3), (1e-3, 5.0, 1e6), (1e6, 1e6, 3e6))
    check_extreme(FAMILY, natural)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), natural)
    values = jax.jit(lambda eta: (FAMILY.points(eta), FAMILY.sample(eta, jr.key(0))))(single)
    assert all((value > 0).all() and value.dtype == jnp.float32 for value in values)


def test_natural_parameters_of_extreme_means():
    shares = 10 ** np.random.default_rng(0).uniform(-3, 0, (6, 10))
    concentrations = jnp.asarray(shares * np.array([0.02, 0.3, 1.0, 30.0, 1e3, 1e5])[:, None])
    again = jax.jit(lambda eta: FAMILY.natural(FAMILY.means(eta)))({"log": concentrations - 1})
    np.testing.assert_allclose(again["log"] + 1, concentrations, rtol=1e-6)


def test_the_mode_is_where_the_density_is_highest_on_the_simplex():
    concentration = np.array([2.0, 5.0, 1.5])
    mode = FAMILY.mode(dirichlet(concentration))[0]

    def negative(logits):
        log_probs = logits - np.logaddexp.reduce(logits)
        return -((concentration - 1) * log_probs).sum()

    best = optimize.minimize(negative, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(mode, np.exp(best - np.logaddexp.reduce(best)), rtol=1e-4)


def test_the_mode_keeps_off_the_edges():
    mode = FAMILY.mode(dirichlet((0.5, 3.0, 2.0)))[0]
    assert mode[0] > 0
    np.testing.assert_allclose(mode, [0, 2 / 3, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(FAMILY.mode(dirichlet((0.5, 0.9, 1.0))), 1 / 3)


def test_the_family_of_a_latent():
    with relaxed_promotion():
        assert value_family(dist.Dirichlet(jnp.ones(3))) == FAMILY
        assert value_family(dist.Beta(1.0, 1.0)) is None
