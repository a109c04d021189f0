"""Gauss-Markov chains against the dense normal of a whole path, and against what nothing as large as it may need."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from family_checks import (
    check_draws,
    check_extreme,
    check_kl,
    check_mode,
    check_moments,
    check_perturbed,
    check_value_rules,
)

from vbss.context import relaxed_promotion
from vbss.distributions import GaussMarkovChain
from vbss.errors import InputError
from vbss.families import GaussMarkov, value_family

BATCH, LENGTH, SIZE = 2, 5, 2
family = GaussMarkov()


def member(seed, batch=(BATCH,), length=LENGTH, size=SIZE):
    """A random sum of quadratic forms of neighbours: positive definite, with a coupling of no symmetry."""
    generator = np.random.default_rng(seed)
    pairs = generator.standard_normal((*batch, length - 1, 2 * size, 2 * size + 2))
    pairs = pairs @ pairs.swapaxes(-1, -2) / size
    precision = np.zeros((*batch, length, size, size)) + 0.1 * np.eye(size)
    precision[..., :-1, :, :] += pairs[..., :size, :size]
    precision[..., 1:, :, :] += pairs[..., size:, size:]
    natural = {
        "linear": generator.standard_normal((*batch, length, size)),
        "precision": precision,
        "coupling": pairs[..., :size, size:],
    }
    return jax.tree.map(jnp.asarray, natural)


def dense(natural):
    """Mean (T, L) and covariance (T, L, T, L) of each path of the batch, and the log partition, by brute force."""
    found = []
    arrays = (np.asarray(natural[key]) for key in ("linear", "precision", "coupling"))
    for linear, precision, coupling in zip(*arrays, strict=True):
        length, size = linear.shape
        matrix = np.zeros((length, size, length, size))
        for t in range(length):
            matrix[t, :, t] = precision[t]
        for t in range(length - 1):
            matrix[t, :, t + 1], matrix[t + 1, :, t] = coupling[t], coupling[t].T
        matrix = matrix.reshape(length * size, -1)
        covariance = np.linalg.inv(matrix)
        mean = covariance @ linear.ravel()
        log_determinant = np.linalg.slogdet(matrix)[1]
        log_partition = (mean @ linear.ravel() - log_determinant + length * size * np.log(2 * np.pi)) / 2
        found.append((mean.reshape(length, size), covariance.reshape(length, size, length, size), log_partition))
    return tuple(np.stack(parts) for parts in zip(*found, strict=True))


def test_identities():
    natural, other = member(0), member(1)
    check_moments(family, natural, tolerance=1e-10)
    check_value_rules(family, natural, other)
    check_mode(family, natural)
    check_perturbed(family, natural)
    means, covariances, _ = dense(natural)
    other_means, other_covariances, _ = dense(other)
    expected = []
    for b in range(BATCH):
        one, two = covariances[b].reshape(LENGTH * SIZE, -1), other_covariances[b].reshape(LENGTH * SIZE, -1)
        gap, precision = (means[b] - other_means[b]).ravel(), np.linalg.inv(two)
        log_ratio = np.linalg.slogdet(two)[1] - np.linalg.slogdet(one)[1]
        expected.append((np.trace(precision @ one) + gap @ precision @ gap - LENGTH * SIZE + log_ratio) / 2)
    check_kl(family, natural, other, jnp.asarray(expected))


def test_the_gradient_of_the_elimination_is_the_smoother_by_brute_force():
    natural = member(0)
    value, gradient = jax.jit(jax.value_and_grad(lambda eta: family.log_partition(eta).sum()))(natural)
    mean, covariance, log_partition = dense(natural)
    second = covariance + np.einsum("bti,bsj->btisj", mean, mean)
    times, steps = np.arange(LENGTH), np.arange(LENGTH - 1)
    np.testing.assert_allclose(value, log_partition.sum(), rtol=1e-12)
    np.testing.assert_allclose(gradient["linear"], mean, rtol=1e-10)
    np.testing.assert_allclose(-2 * gradient["precision"], second[:, times, :, times].swapaxes(0, 1), atol=1e-10)
    np.testing.assert_allclose(-gradient["coupling"], second[:, steps, :, steps + 1].swapaxes(0, 1), atol=1e-10)
    with relaxed_promotion():
        marginals = family.distribution(natural)
    assert marginals.batch_shape == (BATCH, LENGTH)
    np.testing.assert_allclose(marginals.mean, mean, rtol=1e-10)
    own = covariance[:, times, :, times].swapaxes(0, 1)
    np.testing.assert_allclose(marginals.covariance_matrix, own, atol=1e-10)


def test_draws():
    check_draws(family, member(0))


def test_integrals_are_differentiable_twice_in_what_else_the_objective_depends_on():
    natural = member(0, (), 4)
    transition = jnp.asarray(np.random.default_rng(2).standard_normal((SIZE, SIZE)))

    def objective(transition, path):
        return -((path[1:] - path[:-1] @ transition.T) ** 2).sum() / 2

    def expected(transition):
        means = family.means(natural)
        second, cross = -2 * means["precision"], -means["coupling"]
        quadratic = jnp.einsum("ij,ik,tjk->", transition, transition, second[:-1])
        return -(jnp.einsum("tii->", second[1:]) + quadratic) / 2 + jnp.einsum("ij,tji->", transition, cross)

    def integral(transition):
        return family.integrate(lambda path: objective(transition, path), natural)

    @jax.jit
    def derivatives(at):
        return [(f(at), jax.grad(f)(at), jax.hessian(f)(at)) for f in (integral, expected)]

    for found, wanted in zip(*derivatives(transition), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("switches", [False, True])
def test_the_prior_is_read_from_its_density(switches):
    with relaxed_promotion():
        shape = (2, SIZE, SIZE) if switches else (SIZE, SIZE)
        generator = np.random.default_rng(3)
        root = generator.standard_normal((*shape[:-1], SIZE + 2))
        chain = GaussMarkovChain(
            jnp.asarray(generator.standard_normal(SIZE)),
            2 * jnp.eye(SIZE),
            jnp.asarray(generator.standard_normal(shape)),
            jnp.asarray(root @ root.swapaxes(-1, -2)),
            LENGTH,
            offset=jnp.asarray(generator.standard_normal(shape[:-1])),
            gate=jax.nn.one_hot(jnp.array([0, 1, 1, 0]), 2, dtype=float) if switches else None,
        )
        assert value_family(chain) == family
        natural = jax.jit(family.natural_of)(chain)
        paths = jax.jit(lambda fn: fn.sample(jr.key(0), (3,)))(chain)
        log_prob = jax.jit(lambda fn: fn.log_prob(paths))(chain)
    expected = jax.vmap(lambda path: family.inner(natural, family.statistics(path)))(paths)
    np.testing.assert_allclose(log_prob, expected - family.log_partition(natural), rtol=1e-10)


def test_marginals_are_no_chain():
    with pytest.raises(InputError, match="must be a GaussMarkovChain, got MultivariateNormal"):
        family.natural_of(dist.MultivariateNormal(jnp.zeros((3, 2)), jnp.eye(2)))


def test_a_path_of_one_time():
    natural = member(0, (BATCH,), 2)
    natural = {
        "linear": natural["linear"][:, :1],
        "precision": natural["precision"][:, :1],
        "coupling": jnp.zeros((2, 0, 2, 2)),
    }
    check_moments(family, natural)
    check_value_rules(family, natural, natural)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_extreme_scales_in_single_precision(scale):
    natural = member(4)
    natural = {key: scale * natural[key] if key != "linear" else scale**0.5 * natural[key] for key in natural}
    check_extreme(family, natural)


def test_covariances_far_from_the_origin_in_single_precision():
    # Not as differences of second moments, whose rounding would be 1e-2 here.
    natural = member(5, (1,), 20)

    def quadratic(path):
        return -family.inner({**natural, "linear": jnp.zeros_like(path)}, family.statistics(path)).sum()

    natural["linear"] = jax.grad(quadratic)(jnp.full_like(natural["linear"], 300.0))
    mean, covariance, _ = dense(natural)
    with relaxed_promotion():
        found = jax.jit(family.distribution)(jax.tree.map(lambda x: x.astype(jnp.float32), natural))
    times = np.arange(20)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4)
    exact = covariance[:, times, :, times].swapaxes(0, 1)
    np.testing.assert_allclose(found.covariance_matrix, exact, rtol=1e-3, atol=1e-4)


def test_no_array_is_as_large_as_the_square_of_a_path():
    natural = member(6, (), 1000, 3)

    def everything(natural, weight):
        def integral(weight):
            return family.integrate(lambda x: (weight * x[1:] * x[:-1]).sum(), natural)

        path = family.sample(natural, jr.key(0))
        read = family.coefficients(lambda x: (weight * x**2).sum(), path)
        return jax.grad(integral)(weight), read, family.means(natural), family.natural(family.means(natural))

    compiled = jax.jit(everything).lower(natural, jnp.ones(())).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * (1000 * 3) ** 2 / 10
