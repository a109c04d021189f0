"""Recursions over stretches of a chain against the dense normal of the whole path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vbss.families import gauss_markov_recursions as recursions
from vbss.triangular import UNROLLED_SIZE


def member(batch, length, size):
    """A random sum of quadratic forms of neighbours: positive definite, with a coupling of no symmetry."""
    generator = np.random.default_rng(length)
    pairs = generator.standard_normal((*batch, length - 1, 2 * size, 2 * size + 2))
    pairs = pairs @ pairs.swapaxes(-1, -2) / size
    precision = np.zeros((*batch, length, size, size)) + 0.1 * np.eye(size)
    precision[..., :-1, :, :] += pairs[..., :size, :size]
    precision[..., 1:, :, :] += pairs[..., size:, size:]
    linear = generator.standard_normal((*batch, length, size))
    return {"linear": linear, "precision": precision, "coupling": pairs[..., :size, size:]}


def dense(natural):
    """The precision matrix of a whole path, (*batch, T L, T L)."""
    *batch, length, size = natural["linear"].shape
    matrix = np.zeros((*batch, length, size, length, size))
    for t in range(length):
        matrix[..., t, :, t, :] = natural["precision"][..., t, :, :]
    for t in range(length - 1):
        matrix[..., t, :, t + 1, :] = natural["coupling"][..., t, :, :]
        matrix[..., t + 1, :, t, :] = natural["coupling"][..., t, :, :].swapaxes(-1, -2)
    return matrix.reshape(*batch, length * size, length * size)


@jax.jit
def everything(natural, noise):
    elimination = recursions.eliminated(natural)
    path = recursions.path(elimination, None)
    draws = jax.vmap(lambda noise: recursions.path(elimination, noise))(noise)
    log_partition = recursions.log_partition(elimination)
    return *recursions.moments(elimination), path, draws, log_partition, recursions.log_volume(elimination)


# One stretch alone, the last one full, with one time, with one time less; matrices that are not written out.
@pytest.mark.parametrize(
    ("batch", "length", "size"),
    [((), 1, 2), ((2,), 3, 2), ((), 9, 2), ((2,), 10, 2), ((), 11, 1), ((), 7, UNROLLED_SIZE + 1)],
)
def test_the_chain_is_its_dense_normal(batch, length, size):
    natural = member(batch, length, size)
    precision = dense(natural)
    covariance = np.linalg.inv(precision)
    linear = natural["linear"].reshape(*batch, -1)
    mean = np.einsum("...ij,...j->...i", covariance, linear)
    # Each coordinate of the noise in turn: draws are linear in it.
    noise = np.eye(length * size).reshape(-1, *(1,) * len(batch), length, size) + np.zeros((*batch, length, size))
    means, covariances, crosses, path, draws, log_partition, log_volume = everything(natural, noise)
    blocks = covariance.reshape(*batch, length, size, length, size)
    np.testing.assert_allclose(means, mean.reshape(*batch, length, size), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path, means, rtol=1e-9, atol=1e-12)
    for t in range(length):
        np.testing.assert_allclose(covariances[..., t, :, :], blocks[..., t, :, t, :], rtol=1e-9, atol=1e-12)
    for t in range(length - 1):
        np.testing.assert_allclose(crosses[..., t, :, :], blocks[..., t, :, t + 1, :], rtol=1e-9, atol=1e-12)
    root = (np.asarray(draws) - np.asarray(path)).reshape(length * size, *batch, length * size)
    root = np.moveaxis(root, 0, -1)
    np.testing.assert_allclose(root @ root.swapaxes(-1, -2), covariance, rtol=1e-9, atol=1e-12)
    expected = (length * size * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1]) / 2
    np.testing.assert_allclose(log_volume, expected, rtol=1e-12)
    np.testing.assert_allclose(log_partition, expected + (mean * linear).sum(-1) / 2, rtol=1e-12)


def test_recursions_are_as_long_as_a_stretch():
    def loops(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                yield equation.params["length"]
            for inner in jaxprs_in_params(equation.params):
                yield from loops(inner)

    natural = jax.tree.map(jnp.asarray, member((), 400, 2))
    jaxpr = jax.make_jaxpr(lambda natural: recursions.moments(recursions.eliminated(natural)))(natural).jaxpr
    assert sorted(loops(jaxpr)) == [19, 19, 20, 20]
