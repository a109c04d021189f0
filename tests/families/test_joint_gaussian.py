import jax
import numpy as np
import pytest
from family_checks import (
    assert_close,
    check_draws,
    check_kl,
    check_mode,
    check_moments,
    check_perturbed,
    check_value_rules,
)

from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.families import Gaussian, JointGaussian

FAMILY = JointGaussian(((), (2,), ()))


def member(seed):
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((3, 4, 6))
    precision = root @ root.swapaxes(-1, -2) + np.eye(4)
    return {"linear": generator.standard_normal((3, 4)), "precision": precision}


def test_identities():
    natural, other = member(0), member(1)
    check_moments(FAMILY, natural)
    check_value_rules(FAMILY, natural, other)
    check_mode(FAMILY, natural)
    check_perturbed(FAMILY, natural)
    check_kl(FAMILY, natural, other, jax.jit(Gaussian(1).kl)(natural, other))


def test_draws_of_several_sites():
    values = check_draws(FAMILY, member(0))
    assert [value.shape[1:] for value in values] == [(3,), (3, 2), (3,)]


@jax.jit
def marginals(natural):
    with relaxed_promotion():
        joint = Gaussian(1).distribution(natural)
        first, second, third = FAMILY.distribution(natural)
        return (
            joint.mean,
            joint.covariance_matrix,
            (first.mean, first.variance),
            (second.mean, second.covariance_matrix),
            (third.mean, third.variance),
        )


@jax.jit
def read_back(natural):
    with relaxed_promotion():
        return FAMILY.natural_of(FAMILY.distribution(natural))


def test_marginals_are_those_of_the_joint_distribution():
    mean, covariance, first, second, third = jax.tree.map(np.asarray, marginals(member(0)))
    assert_close(first, (mean[:, 0], covariance[:, 0, 0]))
    assert_close(second, (mean[:, 1:3], covariance[:, 1:3, 1:3]))
    assert_close(third, (mean[:, 3], covariance[:, 3, 3]))


def test_independent_sites_lead_back():
    natural = member(0)
    site = np.array([0, 1, 1, 2])
    natural["precision"] = np.where(site[:, None] == site, natural["precision"], 0)
    assert_close(read_back(natural), natural)


def test_events_of_matrices_are_refused():
    with pytest.raises(InputError, match="event_shapes"):
        JointGaussian(((2, 2),))
