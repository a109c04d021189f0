import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_checks import (
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

from vbss.families import Gamma

FAMILY = Gamma()
means_of, natural_of_means = jax.jit(FAMILY.means), jax.jit(FAMILY.natural)
points_of, divergence_of = jax.jit(FAMILY.points), jax.jit(FAMILY.kl)


def member(seed, concentration=(0.4, 1.5, 3.0, 80.0)):
    rate = np.exp(np.random.default_rng(seed).standard_normal(len(concentration)))
    return {"linear": -rate, "log": np.array(concentration) - 1}


def divergence(a, b, c, d):
    """KL of Gamma(a, b) from Gamma(c, d), as the textbook has it."""
    logs = special.gammaln(c) - special.gammaln(a) + c * np.log(b / d)
    return (a - c) * special.digamma(a) + logs + a * (d - b) / b


def test_identities():
    natural, other = member(0), member(1, (2.0, 0.7, 3.1, 40.0))
    check_moments(FAMILY, natural)
    check_value_rules(FAMILY, natural, other)
    check_distribution(FAMILY, natural)
    check_perturbed(FAMILY, natural)
    expected = divergence(natural["log"] + 1, -natural["linear"], other["log"] + 1, -other["linear"])
    check_kl(FAMILY, natural, other, expected)


def test_draws():
    check_draws(FAMILY, member(0))


def test_the_mode():
    check_mode(FAMILY, member(0, (1.5, 3.0, 80.0)))
    at_zero = FAMILY.mode(member(0, (0.1, 1.0)))
    assert (at_zero > 0).all() and (at_zero < 1e-12).all()


@pytest.mark.parametrize("concentration", [1e-3, 1e-1, 1.0, 9.9, 10.1, 1e3, 1e6])
def test_concentrations_from_means(concentration):
    natural = member(0, (concentration,))
    inverse = natural_of_means(means_of(natural))
    # At large concentrations the means' own rounding is what is left.
    np.testing.assert_allclose(inverse["log"] + 1, concentration, rtol=1e-12 + 1e-14 * concentration)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("concentration", [0.03, 0.1, 1.0, 100.0])
def test_points_far_from_the_mean(concentration, dtype):
    natural = {"linear": np.array(-2.0, dtype), "log": np.array(concentration - 1.0, dtype)}
    points = np.asarray(points_of(natural))
    assert points.dtype == dtype
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(points.mean(), concentration / 2, rtol=tolerance * max(1, 0.1 / concentration))
    mean_log = special.digamma(concentration) - np.log(2)
    np.testing.assert_allclose(np.log(points).mean(), mean_log, rtol=0, atol=tolerance * abs(mean_log))


@pytest.mark.parametrize(("concentration", "other"), [(1e6, 1.001e6), (11.0, 9.0), (5e4, 1.0), (0.01, 0.02)])
def test_divergence_in_single_precision(concentration, other):
    # The second member's mean is 1.0005 times the first's.
    concentrations = np.array([concentration, other])
    rates = concentrations / np.array([2.0, 2.001])
    expected = divergence(concentrations[0], rates[0], concentrations[1], rates[1])
    single = [{"linear": -r, "log": a - 1} for a, r in zip(concentrations, rates, strict=True)]
    single = jax.tree.map(lambda x: np.asarray(x, np.float32), single)
    np.testing.assert_allclose(divergence_of(*single), expected, rtol=2e-3, atol=2e-6)


def test_extreme_members_in_single_precision():
    rates, concentrations = np.meshgrid([1e-15, 1.0, 1e15], [1e-3, 1.0, 1e8])
    natural = {"linear": -rates.ravel(), "log": concentrations.ravel() - 1}
    check_extreme(FAMILY, natural)
