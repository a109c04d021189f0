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
from numpyro.distributions import kl_divergence

from vbss.context import relaxed_promotion
from vbss.families import ComplexGaussian
from vbss.hermitian import pack, unpack

packed, unpacked = jax.jit(pack), jax.jit(unpack)


def complex_normal(generator, *shape):
    return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)


def member(size, seed):
    generator = np.random.default_rng(seed)
    root = complex_normal(generator, 3, size, size + 2)
    precision = root @ root.conj().swapaxes(-1, -2) + np.eye(size)
    linear = generator.standard_normal((3, 2, size))
    return {"linear": jnp.asarray(linear), "precision": packed(precision)}


def moments_of_parts(natural):
    """The mean and covariance of (Re x, Im x)."""
    covariance = np.linalg.inv(unpacked(natural["precision"]))
    linear = np.asarray(natural["linear"])[:, 0] + 1j * np.asarray(natural["linear"])[:, 1]
    mean = np.einsum("bij,bj->bi", covariance, linear)
    upper = np.concatenate([covariance.real, -covariance.imag], -1)
    lower = np.concatenate([covariance.imag, covariance.real], -1)
    return np.concatenate([mean.real, mean.imag], -1), np.concatenate([upper, lower], -2) / 2


@jax.jit
def numpyro_divergence(moments, other):
    with relaxed_promotion():
        return kl_divergence(dist.MultivariateNormal(*moments), dist.MultivariateNormal(*other))


families = pytest.mark.parametrize(
    ("family", "size"), [(ComplexGaussian(0), 1), (ComplexGaussian(1), 2)], ids=["scalar", "vector"]
)


@families
def test_identities(family, size):
    natural, other = member(size, 0), member(size, 1)
    check_moments(family, natural)
    check_value_rules(family, natural, other)
    check_distribution(family, natural)
    check_mode(family, natural)
    check_perturbed(family, natural)
    check_kl(family, natural, other, numpyro_divergence(moments_of_parts(natural), moments_of_parts(other)))


def test_draws_are_circular():
    natural = member(2, 0)
    values = check_draws(ComplexGaussian(1), natural)
    assert values.dtype == np.complex128 and values.shape[1:] == (3, 2)
    deviation = np.asarray(values) - np.asarray(jax.jit(ComplexGaussian(1).center)(natural))
    spread = (np.abs(deviation) ** 2).mean(0)
    assert (np.abs((deviation**2).mean(0)) < 5 * np.sqrt(2 / len(values)) * spread).all()


@families
def test_points_have_the_moments_of_real_and_imaginary_part(family, size):
    natural = member(size, 0)
    points = jax.jit(family.points)(natural)
    assert points.shape[0] == 4 * size
    points = np.asarray(points if family.event_rank else points[..., None])
    parts = np.concatenate([points.real, points.imag], -1)
    deviation = parts - parts.mean(0)
    covariance = np.einsum("pbi,pbj->bij", deviation, deviation) / len(points)
    assert_close((parts.mean(0), covariance), moments_of_parts(natural))


def test_coefficients_of_a_likelihood():
    # log N_C(y; A x, noise^2 I) + log N_C(x; 0, I): the posterior of a linear inverse problem.
    generator = np.random.default_rng(0)
    matrix, data, here = (complex_normal(generator, *shape) for shape in [(4, 2), (3, 4), (3, 2)])
    noise = 0.5

    def log_joint(x):
        residual = data - jnp.einsum("ij,bj->bi", matrix, x)
        return -((jnp.abs(residual) ** 2).sum() / noise**2 + (jnp.abs(x) ** 2).sum())

    natural = jax.jit(lambda x: ComplexGaussian(1).coefficients(log_joint, x))(here)
    precision = np.eye(2) + matrix.conj().T @ matrix / noise**2
    linear = data @ matrix.conj() / noise**2
    assert_close(unpacked(natural["precision"]), np.broadcast_to(precision, (3, 2, 2)))
    assert_close(natural["linear"], np.stack([linear.real, linear.imag], 1))


@pytest.mark.parametrize("precision", [1e-12, 1e12])
def test_wide_and_narrow_members_in_single_precision(precision):
    matrix = packed(precision * np.broadcast_to(np.eye(2, dtype=complex), (3, 2, 2)))
    check_extreme(ComplexGaussian(1), {"linear": np.zeros((3, 2, 2)), "precision": matrix})


def test_divergence_far_from_the_origin_in_single_precision():
    one, other = (
        {"linear": jnp.array([[m], [0.0]], jnp.float32), "precision": jnp.ones(1, jnp.float32)}
        for m in (10000.0, 10001.0)
    )
    np.testing.assert_allclose(jax.jit(ComplexGaussian(1).kl)(one, other), 1.0, rtol=1e-6)
