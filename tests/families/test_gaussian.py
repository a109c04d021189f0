from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
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
from numpyro.distributions import kl_divergence

from vbss.context import relaxed_promotion
from vbss.families import Gaussian


def member(size, seed, batch=(3,)):
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((*batch, size, size + 2))
    precision = root @ root.swapaxes(-1, -2) + np.eye(size)
    return {"linear": jnp.asarray(generator.standard_normal((*batch, size))), "precision": jnp.asarray(precision)}


@partial(jax.jit, static_argnums=0)
def numpyro_divergence(family, natural, other):
    with relaxed_promotion():
        return kl_divergence(family.distribution(natural), family.distribution(other))


gaussians = pytest.mark.parametrize(("family", "size"), [(Gaussian(0), 1), (Gaussian(1), 2)], ids=["scalar", "vector"])


@gaussians
def test_identities(family, size):
    natural, other = member(size, 0), member(size, 1)
    check_moments(family, natural)
    check_value_rules(family, natural, other)
    check_distribution(family, natural)
    check_mode(family, natural)
    check_perturbed(family, natural)
    check_kl(family, natural, other, numpyro_divergence(family, natural, other))


def test_draws():
    assert check_draws(Gaussian(1), member(2, 0)).shape[1:] == (3, 2)


@pytest.mark.parametrize("precision", [1e-12, 1e12])
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_far_and_narrow_members_in_single_precision(precision, mean):
    matrix = precision * np.broadcast_to(np.eye(2), (3, 2, 2))
    natural = {"linear": np.full((3, 2), precision * mean), "precision": matrix}
    # Means far apart from a narrow spread no longer hold the spread: what is read back from them need not exist.
    check_extreme(Gaussian(1), natural, without=("natural",) if mean and precision > 1 else ())


def test_divergence_far_from_the_origin_in_single_precision():
    # Both log partitions are about 5e7 here, where single precision knows nothing below 4.
    precision = jnp.ones((1, 1), jnp.float32)
    one, other = ({"linear": jnp.array([m], jnp.float32), "precision": precision} for m in (10000.0, 10001.0))
    np.testing.assert_allclose(jax.jit(Gaussian(1).kl)(one, other), 0.5, rtol=1e-6)


@jax.jit
def read(loc, scale_tril):
    with relaxed_promotion():
        return Gaussian(1).natural_of(dist.MultivariateNormal(loc, scale_tril=scale_tril))


def test_parameters_without_the_batch_s_axes_are_read_in_full():
    natural = read(np.ones((4, 2)), np.eye(2) / 2)
    np.testing.assert_allclose(natural["linear"], np.full((4, 2), 4.0))
    np.testing.assert_allclose(natural["precision"], np.broadcast_to(4 * np.eye(2), (4, 2, 2)), atol=1e-12)
