import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import special, stats

from vbss.context import relaxed_promotion
from vbss.distributions import Indicator, MarkovChain

log_prob = jax.jit(lambda distribution, value: distribution.log_prob(value))
linear_form = jax.jit(lambda distribution, statistics: distribution.expected_log_prob(statistics))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def log_simplex(seed, *shape):
    return special.log_softmax(np.random.default_rng(seed).standard_normal(shape), -1)


def assert_frequencies(counts, probabilities):
    """No evidence that the counts come from other probabilities."""
    assert stats.chisquare(counts, counts.sum() * probabilities).pvalue > 1e-3


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_the_one_hot_has_its_states_at_the_axis(axis):
    indicator = Indicator(jnp.asarray(log_simplex(0, 3, 2, 4)), axis)
    assert indicator.batch_shape == (3, 2) and indicator.event_shape == ()
    value = jnp.array([[0, 3], [1, 1], [2, 0]])
    onehot = indicator.sufficient_statistics(value)["onehot"]
    assert onehot.shape == {-1: (3, 2, 4), -2: (3, 4, 2), -3: (4, 3, 2)}[axis]
    assert onehot.dtype == float
    np.testing.assert_array_equal(onehot.argmax(axis), value)
    np.testing.assert_array_equal(onehot.sum(axis), 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_from_the_front_is_refused(axis):
    with pytest.raises(ValueError, match=f"axis must be negative .*{axis}"):
        Indicator(jnp.zeros(3), axis)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("batch", [(), (2,), (5, 1), (5, 2)])
def test_the_indicator_is_linear_in_its_statistics(axis, batch):
    log_probs = log_simplex(0, *batch, 3)
    indicator = Indicator(jnp.asarray(log_probs), axis)
    value = np.random.default_rng(1).integers(0, 3, (5, 2))
    expected = np.take_along_axis(np.broadcast_to(log_probs, (5, 2, 3)), value[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_prob(indicator, value), expected, rtol=1e-12)
    statistics = indicator.sufficient_statistics(value)
    np.testing.assert_allclose(linear_form(indicator, statistics), expected, rtol=1e-12)
    # Not normalised: twice the logits are twice the value, so that the gradient in them is the counts.
    doubled = Indicator(jnp.asarray(2 * log_probs), axis)
    np.testing.assert_allclose(linear_form(doubled, statistics), 2 * expected, rtol=1e-12)


def test_the_gradient_in_the_logits_is_the_expected_counts():
    mean = jnp.asarray(np.exp(log_simplex(1, 7, 3)))
    gradient = jax.grad(lambda logits: Indicator(logits).expected_log_prob({"onehot": mean}).sum())
    np.testing.assert_allclose(gradient(jnp.asarray(log_simplex(0, 3))), mean.sum(0), rtol=1e-12)


def test_states_of_probability_zero():
    indicator = Indicator(jnp.array([0.0, -jnp.inf]))
    onehot = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    possible, impossible = linear_form(indicator, {"onehot": onehot})
    assert possible == 0
    assert impossible <= -1e29
    chain = MarkovChain(jnp.array([0.0, -jnp.inf]), jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]]), 3)
    np.testing.assert_array_equal(draw(chain, jr.key(0), (50,)), 0)
    assert log_prob(chain, jnp.array([0, 0, 0])) == 0
    assert log_prob(chain, jnp.array([0, 1, 0])) <= -1e29
    gradient = jax.grad(lambda initial: MarkovChain(initial, chain.log_transition, 3).log_prob(jnp.array([0, 0, 0])))
    np.testing.assert_array_equal(gradient(chain.log_initial), [1, 0])


def test_indicator_frequencies():
    log_probs = log_simplex(0, 2, 3)
    values = np.asarray(draw(Indicator(jnp.asarray(log_probs)), jr.key(0), (5000,)))
    assert values.shape == (5000, 2)
    for n in range(2):
        assert_frequencies(np.bincount(values[:, n], minlength=3), np.exp(log_probs[n]))


def test_the_indicator_expands_masks_and_maps():
    log_probs = jnp.asarray(log_simplex(0, 3))
    indicator = Indicator(log_probs, -2)
    value = jnp.array([0, 2, 1, 2])
    expected = log_probs[value]
    expanded = indicator.expand((4,))
    assert expanded.batch_shape == (4,)
    np.testing.assert_allclose(log_prob(expanded, value), expected, rtol=1e-12)
    mask = jnp.array([True, False, True, False])
    np.testing.assert_allclose(log_prob(expanded.mask(mask), value), jnp.where(mask, expected, 0), rtol=1e-12)
    leaves, structure = jax.tree.flatten(indicator)
    again = jax.tree.unflatten(structure, leaves)
    assert len(leaves) == 1 and again.axis == -2 and again.batch_shape == ()
    assert jax.jit(lambda d: d.sufficient_statistics(value)["onehot"])(again).shape == (3, 4)
    mapped = jax.vmap(lambda logits, v: Indicator(logits).log_prob(v))(jnp.asarray(log_simplex(1, 4, 3)), value)
    np.testing.assert_allclose(mapped, log_simplex(1, 4, 3)[np.arange(4), value], rtol=1e-12)
    np.testing.assert_array_equal(indicator.enumerate_support(), [0, 1, 2])


def path_log_prob(log_initial, log_transition, path):
    steps = itertools.pairwise(path)
    return log_initial[path[0]] + sum(log_transition[i, j] for i, j in steps)


@pytest.mark.parametrize(("num_states", "length"), [(2, 2), (3, 4)])
def test_chain_probabilities(num_states, length):
    log_initial, log_transition = log_simplex(0, num_states), log_simplex(1, num_states, num_states)
    chain = MarkovChain(jnp.asarray(log_initial), jnp.asarray(log_transition), length)
    paths = np.array(list(itertools.product(range(num_states), repeat=length)))
    found = log_prob(chain, paths)
    np.testing.assert_allclose(found, [path_log_prob(log_initial, log_transition, p) for p in paths], rtol=1e-12)
    assert special.logsumexp(found) == pytest.approx(0, abs=1e-12)
    statistics = chain.sufficient_statistics(paths)
    np.testing.assert_allclose(linear_form(chain, statistics), found, rtol=1e-12)
    mean = jax.tree.map(lambda s: s[:2].mean(0), statistics)
    np.testing.assert_allclose(linear_form(chain, mean), found[:2].mean(), rtol=1e-12)


def test_chain_frequencies():
    log_initial, log_transition = log_simplex(0, 2), log_simplex(1, 2, 2)
    chain = MarkovChain(jnp.asarray(log_initial), jnp.asarray(log_transition), 3)
    values = np.asarray(draw(chain, jr.key(0), (5000,)))
    paths = list(itertools.product(range(2), repeat=3))
    probabilities = np.exp([path_log_prob(log_initial, log_transition, path) for path in paths])
    assert_frequencies(np.bincount(values @ [4, 2, 1], minlength=8), probabilities)


def test_chains_in_a_batch():
    log_initial, log_transition = log_simplex(0, 2, 1, 3), log_simplex(1, 4, 3, 3)
    chain = MarkovChain(jnp.asarray(log_initial), jnp.asarray(log_transition), 5)
    assert chain.batch_shape == (2, 4) and chain.event_shape == (5,)
    values = draw(chain, jr.key(0), (6,))
    assert values.shape == (6, 2, 4, 5)
    assert chain.support(values).all() and not chain.support(values + 3).any() and not chain.support(values - 3).any()
    expected = [
        [
            [path_log_prob(log_initial[i, 0], log_transition[j], np.asarray(values[s, i, j])) for j in range(4)]
            for i in range(2)
        ]
        for s in range(6)
    ]
    np.testing.assert_allclose(log_prob(chain, values), expected, rtol=1e-12)
    statistics = chain.sufficient_statistics(values)
    assert statistics["onehot"].shape == (6, 2, 4, 5, 3) and statistics["pair"].shape == (6, 2, 4, 4, 3, 3)
    np.testing.assert_array_equal(statistics["onehot"].argmax(-1), values)
    np.testing.assert_array_equal(statistics["pair"].argmax(-2).max(-1), values[..., :-1])
    np.testing.assert_array_equal(statistics["pair"].argmax(-1).max(-1), values[..., 1:])


def test_draws_of_a_batch_of_chains_are_distinct_and_follow_their_own_rows():
    sticky = jnp.log(jnp.array([[0.95, 0.05], [0.05, 0.95]]))
    chain = MarkovChain(jnp.log(jnp.array([0.5, 0.5])), jnp.stack([sticky, sticky[::-1]]), 40)
    values = np.asarray(draw(chain, jr.key(0), (200,)))
    stays = (values[..., 1:] == values[..., :-1]).mean((0, -1))
    np.testing.assert_allclose(stays, [0.95, 0.05], atol=0.015)
    assert len(np.unique(values[:, 0], axis=0)) > 100


def test_the_chain_expands_masks_and_maps():
    log_initial, log_transition = jnp.asarray(log_simplex(0, 2)), jnp.asarray(log_simplex(1, 2, 2))
    chain = MarkovChain(log_initial, log_transition, 3)
    expanded = chain.expand((4,))
    values = draw(expanded, jr.key(1), ())
    assert values.shape == (4, 3)
    expected = [path_log_prob(log_initial, log_transition, np.asarray(value)) for value in values]
    np.testing.assert_allclose(log_prob(expanded, values), expected, rtol=1e-12)
    mask = jnp.array([True, False, False, True])
    np.testing.assert_allclose(log_prob(expanded.mask(mask), values), np.where(mask, expected, 0), rtol=1e-12)
    leaves, structure = jax.tree.flatten(chain)
    again = jax.tree.unflatten(structure, leaves)
    assert len(leaves) == 2 and again.length == 3 and again.event_shape == (3,)
    np.testing.assert_allclose(log_prob(again, values), expected, rtol=1e-12)
    mapped = jax.vmap(lambda i, v: MarkovChain(i, log_transition, 3).log_prob(v))(jnp.stack([log_initial] * 4), values)
    np.testing.assert_allclose(mapped, expected, rtol=1e-12)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_log_probabilities_that_are_none_are_refused(bad):
    broken = jnp.array([0.0, bad])
    with pytest.raises(ValueError, match="Indicator .*logits"):
        Indicator(broken)
    with pytest.raises(ValueError, match="MarkovChain .*log_initial"):
        MarkovChain(broken, jnp.zeros((2, 2)), 3)
    with pytest.raises(ValueError, match="MarkovChain .*log_transition"):
        MarkovChain(jnp.zeros(2), jnp.stack([jnp.zeros(2), broken]), 3)


@pytest.mark.parametrize(
    ("initial", "transition", "length", "message"),
    [
        ((3,), (2, 2), 4, r"log_transition must end in \(3, 3\).*\(2, 2\)"),
        ((3,), (3,), 4, r"log_transition must end in \(3, 3\)"),
        ((2,), (2, 2), 1, "length must be at least 2, got 1"),
    ],
)
def test_chains_that_make_no_sense_are_refused(initial, transition, length, message):
    with pytest.raises(ValueError, match=message):
        MarkovChain(jnp.zeros(initial), jnp.zeros(transition), length)
