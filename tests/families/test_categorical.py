import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_checks import (
    assert_close,
    check_distribution,
    check_draws,
    check_extreme,
    check_kl,
    check_moments,
    check_perturbed,
)
from scipy import special

from vbss.context import relaxed_promotion
from vbss.families import Categorical


def member(seed):
    return {"onehot": 3 * np.random.default_rng(seed).standard_normal((3, 4))}


def statistics(family, num_states):
    def of_states(states):
        return {"onehot": jax.nn.one_hot(states, num_states, dtype=jnp.float64, axis=family.axis)}

    return of_states


@pytest.mark.parametrize(("axis", "batch", "num_states"), [(-1, (3,), 4), (-2, (4,), 3)])
def test_identities(axis, batch, num_states):
    family, natural, other = Categorical(axis), member(0), member(1)
    check_moments(family, natural, has_gauge=True)
    check_perturbed(family, natural)
    probs, log_probs = special.softmax(natural["onehot"], axis), special.log_softmax(natural["onehot"], axis)
    assert_close(family.means(natural)["onehot"], probs, 1e-12)
    assert_close(family.entropy(natural), -(probs * log_probs).sum(axis), 1e-12)
    expected = (probs * (log_probs - special.log_softmax(other["onehot"], axis))).sum(axis)
    check_kl(family, natural, other, expected)
    check_distribution(family, natural, statistics(family, num_states), has_gauge=True)
    with relaxed_promotion():
        distribution = family.distribution(natural)
    assert distribution.batch_shape == family.log_partition(natural).shape == batch
    assert distribution.axis == axis


@pytest.mark.parametrize("axis", [-1, -2])
def test_draws_and_the_mode(axis):
    family, natural = Categorical(axis), member(0)
    check_draws(family, natural, statistics(family, natural["onehot"].shape[axis]))
    mode, onehot = family.mode(natural), family.mode_statistics(natural)["onehot"]
    assert_close(mode, natural["onehot"].argmax(axis))
    assert_close(onehot, statistics(family, onehot.shape[axis])(mode)["onehot"])


def test_impossible_states_stay_impossible():
    family = Categorical()
    read = jax.jit(lambda eta: family.natural_of(family.distribution(eta)))({"onehot": np.array([0.0, -np.inf])})
    assert np.isfinite(read["onehot"]).all()
    assert_close(family.means(read)["onehot"], np.array([1.0, 0.0]))


def test_certain_states_in_single_precision():
    certain = {"onehot": jnp.array([[1e4, 0.0, -1e4], [-1e30, 0.0, -1e30]])}
    check_extreme(Categorical(), certain)
    assert (Categorical().entropy(certain) == 0).all()
    # A probe that looks about a certain member sees other states too.
    assert Categorical().means(Categorical().perturbed(certain, jax.random.key(0)))["onehot"].max() < 0.99
