"""The identities that every exponential family of the posterior must satisfy.

Each check takes a family and natural parameters in double precision; `other` is a second member of the same shapes.
`statistics` takes one value of the batch's shape to its statistics: by default the family's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from vbss.context import relaxed_promotion

Statistics = Callable[[Any], dict[str, jax.Array]]


def assert_close(actual, expected, tolerance=1e-9, name=""):
    """Entry by entry, relative to 1 + the size of the entry."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape, name
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=name)


@partial(jax.jit, static_argnums=0)
def _moments(family, natural):
    means = family.means(natural)
    gradient = jax.grad(lambda eta: family.log_partition(eta).sum())(natural)
    inverse = family.natural(means)
    log_partition, product = family.log_partition(natural), family.inner(natural, means)
    return means, gradient, inverse, family.means(inverse), log_partition, product, family.entropy(natural)


def check_moments(family, natural, *, has_gauge=False, tolerance=1e-9):
    """Means are the gradient of the log partition, `natural` inverts them, the entropy is A - <eta, mean>.

    Args:
        has_gauge: whether different natural parameters may be the same member.
    """
    means, gradient, inverse, means_again, log_partition, product, entropy = _moments(family, natural)
    assert_close(means, gradient, tolerance, "means")
    assert_close(means_again, means, tolerance, "means of natural(means)")
    if not has_gauge:
        assert_close(inverse, natural, tolerance, "natural(means)")
    assert log_partition.shape == entropy.shape
    assert_close(entropy, np.asarray(log_partition) - np.asarray(product), tolerance, "entropy")


@partial(jax.jit, static_argnums=0)
def _divergences(family, natural, other):
    means = family.means(natural)
    gap = jax.tree.map(jnp.subtract, natural, other)
    bregman = family.log_partition(other) - family.log_partition(natural) + family.inner(gap, means)
    return family.kl(natural, other), family.kl(natural, natural), bregman


def check_kl(family, natural, other, expected=None, tolerance=1e-9):
    """KL is that of the log partition (and the expected one, of the batch's shape), positive, and 0 from itself."""
    there, itself, bregman = _divergences(family, natural, other)
    assert_close(there, bregman, tolerance, "kl")
    assert_close(itself, np.zeros_like(itself), tolerance, "kl of itself")
    assert (np.asarray(there) > 1e-6).all()
    if expected is not None:
        assert_close(there, expected, tolerance, "kl of reference")


@partial(jax.jit, static_argnums=0)
def _rules(family, natural, other):
    def linear(coefficients):
        return lambda value: family.inner(coefficients, family.statistics(value)).sum() + 7.0

    means = family.means(natural)
    center = family.center(natural)
    reference, product = family.reference(natural)
    noise = {key: jr.normal(jr.key(n), entry.shape, entry.dtype) for n, (key, entry) in enumerate(natural.items())}
    return {
        "integral": (family.integrate(linear(noise), natural), family.inner(noise, means).sum() + 7.0),
        "integral of another member": (
            family.integrate(linear(other), natural),
            family.inner(other, means).sum() + 7.0,
        ),
        "coefficients at the center": (family.coefficients(linear(other), center), other),
        "coefficients elsewhere": (family.coefficients(linear(other), family.sample(natural, jr.key(5))), other),
        "reference": (product, family.inner(natural, family.statistics(reference))),
        "initial": (family.initial(center), family.entropy(family.initial(center))),
    }


def check_value_rules(family, natural, other, tolerance=1e-9):
    """`integrate` is exact and `coefficients` reads back at any value, both for functions linear in the statistics."""
    pairs = _rules(family, natural, other)
    initial, entropy = pairs.pop("initial")
    assert jax.tree.map(np.shape, initial) == jax.tree.map(np.shape, natural)
    assert np.isfinite(entropy).all()
    for name, (actual, expected) in pairs.items():
        assert_close(actual, expected, tolerance, name)


@partial(jax.jit, static_argnums=(0, 2))
def draws(family, natural, num_draws):
    """Independent draws, stacked in front."""
    return jax.vmap(family.sample, (None, 0))(natural, jr.split(jr.key(0), num_draws))


@partial(jax.jit, static_argnums=(0, 2, 3))
def _drawn(family, natural, statistics, num_draws):
    values = draws(family, natural, num_draws)
    with relaxed_promotion():
        drawn = jax.vmap(statistics)(values)
    averages = jax.tree.map(lambda samples: samples.mean(0), drawn)
    return values, averages, jax.tree.map(lambda samples: samples.std(0), drawn), family.means(natural)


def check_draws(family, natural, statistics: Statistics | None = None, num_draws=20_000):
    """The draws' mean statistics lie within 5 standard errors of the means; returns the draws."""
    values, averages, deviations, means = _drawn(family, natural, statistics or family.statistics, num_draws)
    assert averages.keys() == means.keys()
    for key, mean in means.items():
        error = np.asarray(deviations[key]) / np.sqrt(num_draws)
        unseen = np.where(error == 0, 10 / num_draws, 0)  # an event too rare to be among the draws
        assert (np.abs(np.asarray(averages[key]) - np.asarray(mean)) <= 5 * error + unseen + 1e-9).all(), key
    return values


@partial(jax.jit, static_argnums=(0, 2))
def _densities(family, natural, statistics):
    values = draws(family, natural, 4)
    with relaxed_promotion():
        distribution = family.distribution(natural)
        log_prob = distribution.log_prob(values)
        drawn = jax.vmap(statistics)(values)
        again = family.natural_of(distribution)
    density = jax.vmap(lambda s: family.inner(natural, s) - family.log_partition(natural))(drawn)
    return log_prob, density, again, family.means(natural), family.means(again)


def check_distribution(family, natural, statistics: Statistics | None = None, *, has_gauge=False, tolerance=1e-8):
    """The NumPyro distribution has the family's density at draws (log h = 0) and leads back to the same member."""
    log_prob, density, again, means, means_again = _densities(family, natural, statistics or family.statistics)
    assert_close(log_prob, density, tolerance, "log_prob")
    assert_close(means_again, means, tolerance, "means of natural_of")
    if not has_gauge:
        assert_close(again, natural, tolerance, "natural_of")


@partial(jax.jit, static_argnums=0)
def _density_gradient(family, natural):
    def log_density(value):
        return family.inner(natural, family.statistics(value)).sum()

    return jax.grad(log_density)(family.mode(natural))


def check_mode(family, natural, tolerance=1e-9):
    """The density is stationary at the mode (of families whose values are unconstrained there)."""
    gradient = _density_gradient(family, natural)
    assert_close(gradient, jax.tree.map(np.zeros_like, gradient), tolerance, "gradient at the mode")


@partial(jax.jit, static_argnums=0)
def _perturbed(family, natural, seed):
    moved = family.perturbed(natural, jr.key(seed))
    return moved, family.entropy(moved), family.means(moved)


def check_perturbed(family, natural):
    """Other proper members, different for different keys, of the same shapes and precision."""
    (one, *rest), (two, *_) = (_perturbed(family, natural, seed) for seed in (0, 1))
    assert jax.tree.map(np.shape, one) == jax.tree.map(np.shape, natural)
    assert jax.tree.map(lambda x: x.dtype, one) == jax.tree.map(lambda x: x.dtype, natural)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rest))
    assert not any(np.array_equal(one[key], two[key]) for key in natural)


@partial(jax.jit, static_argnums=0)
def _everything(family, natural):
    return {
        "log_partition": family.log_partition(natural),
        "means": family.means(natural),
        "natural": family.natural(family.means(natural)),
        "entropy": family.entropy(natural),
        "kl": family.kl(natural, natural),
        "sample": family.sample(natural, jr.key(0)),
        "mode": family.mode(natural),
        "perturbed": family.perturbed(natural, jr.key(1)),
    }


def check_extreme(family, natural, *, without=()):
    """At extreme parameters in single precision everything (but what is named in `without`) is finite and single."""
    for name, result in _everything(family, jax.tree.map(lambda x: np.asarray(x, np.float32), natural)).items():
        for leaf in jax.tree.leaves(result):
            assert leaf.dtype in (np.float32, np.complex64) or np.issubdtype(leaf.dtype, np.integer), name
            assert name in without or np.isfinite(leaf).all(), name
