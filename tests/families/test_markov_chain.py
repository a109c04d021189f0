import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_checks import assert_close, check_draws, check_extreme, check_kl, check_moments, check_perturbed
from scipy import special

from vbss.context import relaxed_promotion
from vbss.distributions import MarkovChain
from vbss.families import DiscreteChain

FAMILY = DiscreteChain()
means_of, mode_of, entropy_of = (jax.jit(method) for method in (FAMILY.means, FAMILY.mode, FAMILY.entropy))


def member(seed, length=4, num_states=3, batch=(2,)):
    generator = np.random.default_rng(seed)
    return {
        "onehot": 2 * generator.standard_normal((*batch, length, num_states)),
        "pair": 2 * generator.standard_normal((*batch, length - 1, num_states, num_states)),
    }


def statistics(states):
    onehot = jax.nn.one_hot(states, 3, dtype=jnp.float64)
    return {"onehot": onehot, "pair": onehot[..., :-1, :, None] * onehot[..., 1:, None, :]}


def every_path(natural):
    """All paths (n, T) with their statistics and log potentials (n, *batch)."""
    *_, length, num_states = natural["onehot"].shape
    paths = np.array(list(itertools.product(range(num_states), repeat=length)))
    onehot = np.eye(num_states)[paths]
    pair = onehot[:, :-1, :, None] * onehot[:, 1:, None, :]
    potential = np.einsum("ntk,...tk->n...", onehot, natural["onehot"])
    return paths, onehot, pair, potential + np.einsum("ntij,...tij->n...", pair, natural["pair"])


@jax.jit
def summary(natural):
    with relaxed_promotion():
        marginals = FAMILY.distribution(natural).probs
    return FAMILY.log_partition(natural), FAMILY.means(natural), FAMILY.entropy(natural), marginals


@pytest.mark.parametrize(("num_states", "length"), [(2, 5), (3, 2)])
def test_moments_are_sums_over_all_paths(num_states, length):
    natural = member(0, length, num_states, (2, 2))
    _, onehot, pair, potential = every_path(natural)
    probs = special.softmax(potential, 0)
    log_partition, means, entropy, marginals = summary(natural)
    np.testing.assert_allclose(log_partition, special.logsumexp(potential, 0), rtol=1e-12)
    np.testing.assert_allclose(means["onehot"], np.einsum("nbc,ntk->bctk", probs, onehot), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(means["pair"], np.einsum("nbc,ntij->bctij", probs, pair), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(entropy, -(probs * np.log(probs)).sum(0), rtol=1e-10)
    np.testing.assert_allclose(marginals, means["onehot"], rtol=1e-12)


def test_identities():
    natural, other = member(0), member(1)
    check_moments(FAMILY, natural, has_gauge=True)
    check_perturbed(FAMILY, natural)
    log_probs = [special.log_softmax(every_path(chain)[-1], 0) for chain in (natural, other)]
    expected = (np.exp(log_probs[0]) * (log_probs[0] - log_probs[1])).sum(0)
    check_kl(FAMILY, natural, other, expected)


def test_draws_are_whole_paths():
    natural = member(0)
    paths, _, _, potential = every_path(natural)
    drawn = np.asarray(check_draws(FAMILY, natural, statistics))
    # Beyond the statistics' means: every path as often as it should.
    index = (drawn * 3 ** np.arange(3, -1, -1)).sum(-1)
    assert (paths[index[:, 0]] == drawn[:, 0]).all()
    probs = special.softmax(potential, 0)
    for entry in range(2):
        frequency = np.bincount(index[:, entry], minlength=len(paths)) / len(index)
        error = np.sqrt(probs[:, entry] / len(index))
        assert (np.abs(frequency - probs[:, entry]) <= 5 * error + 1e-3).all()


def test_the_mode_is_the_best_path():
    natural = member(3, 4, 3, (20,))
    paths, onehot, pair, potential = every_path(natural)
    best = potential.argmax(0)
    assert_close(mode_of(natural), paths[best])
    assert_close(jax.jit(FAMILY.mode_statistics)(natural), {"onehot": onehot[best], "pair": pair[best]})
    marginal = np.argmax(means_of(natural)["onehot"], -1)
    assert (np.asarray(mode_of(natural)) != marginal).any(), (
        "the example should tell the best path from the best states"
    )


@jax.jit
def read(initial, transition, paths):
    with relaxed_promotion():
        chain = MarkovChain(initial, transition, 4)
        natural = FAMILY.natural_of(chain)
        product = FAMILY.inner(natural, statistics(paths))
        return natural, FAMILY.log_partition(natural), product, chain.log_prob(paths)


def test_natural_parameters_of_a_markov_chain():
    generator = np.random.default_rng(0)
    initial = special.log_softmax(generator.standard_normal((2, 3)), -1)
    transition = special.log_softmax(generator.standard_normal((3, 3)), -1)
    transition[0] = [0.0, -np.inf, -np.inf]
    paths = np.array([[1, 2, 1, 0], [2, 1, 0, 0]])
    natural, log_partition, product, log_prob = read(initial, transition, paths)
    assert natural["onehot"].shape == (2, 4, 3) and natural["pair"].shape == (2, 3, 3, 3)
    assert_close(log_partition, np.zeros(2))
    assert_close(product, log_prob)
    again = jax.jit(FAMILY.natural)(means_of(natural))
    assert_close(means_of(again), means_of(natural))


def test_long_chains_in_single_precision():
    # The log partition is about 1e6: messages that carried it would know no probability below 0.06.
    natural = member(0, 1000, 2, ())
    natural["onehot"] = natural["onehot"] + 1e3
    exact = means_of(natural)
    single = means_of(jax.tree.map(np.float32, natural))
    np.testing.assert_allclose(single["onehot"], exact["onehot"], atol=2e-4)
    np.testing.assert_allclose(single["pair"], exact["pair"], atol=2e-4)


def test_entropy_of_a_long_chain_in_single_precision():
    # A difference of the log partition, about 1e6, and what the potentials are expected to be would know no entropy.
    natural = member(0, 1000, 2, ())
    natural["onehot"] = natural["onehot"] + 1e3
    exact, single = (entropy_of(jax.tree.map(dtype, natural)) for dtype in (np.float64, np.float32))
    np.testing.assert_allclose(single, exact, rtol=2e-5)


@pytest.mark.parametrize(("scale", "offset"), [(1e3, 0.0), (1.0, 1e4)])
def test_large_potentials_in_single_precision(scale, offset):
    # The same transitions at every time: their rounding would add up over the chain.
    natural = member(1, 1000, 3, ())
    natural["pair"] = np.broadcast_to(scale * natural["pair"][:1] + offset, natural["pair"].shape)
    single = jax.tree.map(np.float32, natural)
    means, exact = means_of(single), means_of(jax.tree.map(np.float64, single))
    np.testing.assert_allclose(means["onehot"].sum(-1), 1, atol=2e-3)
    np.testing.assert_allclose(means["onehot"], exact["onehot"], atol=5e-3)
    np.testing.assert_allclose(means["pair"], exact["pair"], atol=5e-3)


def test_certain_chains_in_single_precision():
    natural = {"onehot": np.array([[1e4, 0.0], [0.0, -1e30], [0.0, 1e4]]), "pair": np.zeros((2, 2, 2))}
    check_extreme(FAMILY, natural)
    assert_close(mode_of(natural), np.array([0, 0, 1]))
