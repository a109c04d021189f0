import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special

from vbss.context import relaxed_promotion
from vbss.distributions import ComplexInverseWishart, Indicator, MarkovChain
from vbss.families import Categorical, Chain, Gamma, Gaussian, statistics_family, value_family


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def gaussian(seed, size):
    root = np.random.default_rng(seed + 100).standard_normal((3, size, size + 2))
    return {"linear": normal(seed, 3, size), "precision": jnp.asarray(root @ root.swapaxes(-1, -2) + np.eye(size))}


def gamma(seed):
    linear, log = normal(seed, 2, 3)
    return {"linear": -jnp.exp(linear), "log": jnp.exp(log) - 1}


def gaussian_statistics(x):
    """Of one value (3,) or (3, L): what the natural parameters multiply."""
    x = x[..., None] if x.ndim == 1 else x
    return {"linear": x, "precision": -x[..., :, None] * x[..., None, :] / 2}


VALUE_FAMILIES = {
    "scalar gaussian": (Gaussian(0), lambda seed: gaussian(seed, 1), gaussian_statistics),
    "gaussian": (Gaussian(1), lambda seed: gaussian(seed, 2), gaussian_statistics),
    "gamma": (Gamma(), gamma, lambda u: {"linear": u, "log": jnp.log(u)}),
}
value_families = pytest.mark.parametrize(
    ("family", "random_natural", "statistics"), VALUE_FAMILIES.values(), ids=VALUE_FAMILIES
)
ONE, OTHER = 0, 1


def inner(natural, statistics):
    """<eta, s> for each member of the batch (3,)."""
    return sum((natural[key] * statistics[key]).reshape(3, -1).sum(-1) for key in natural)


def means_of(family, natural):
    return jax.jit(jax.grad(lambda eta: family.log_partition(eta).sum()))(natural)


@value_families
def test_points_have_the_means_of_the_family(family, random_natural, statistics):
    natural = random_natural(ONE)
    points = family.points(natural)
    assert points.shape[1:] == family.initial(points[0])["linear"].shape[: points.ndim - 1]
    averages = jax.tree.map(lambda s: s.mean(0), jax.vmap(statistics)(points))
    for key, mean in means_of(family, natural).items():
        np.testing.assert_allclose(averages[key], mean, rtol=1e-10, atol=1e-10)


@value_families
def test_entropy_of_a_value_family(family, random_natural, statistics):
    natural = random_natural(ONE)
    expected = family.log_partition(natural) - inner(natural, means_of(family, natural))
    np.testing.assert_allclose(family.entropy(natural), expected, rtol=1e-10, atol=1e-10)


@value_families
def test_natural_parameters_are_read_from_a_density(family, random_natural, statistics):
    natural, here = random_natural(ONE), random_natural(OTHER)
    read = jax.jit(lambda eta: family.read(lambda x: inner(eta, statistics(x)).sum() + 7.0, here))(natural)
    assert read.keys() == natural.keys()
    for key, value in natural.items():
        np.testing.assert_allclose(read[key], value, rtol=1e-9, atol=1e-10)


@value_families
def test_the_distribution_has_the_family_s_density(family, random_natural, statistics):
    natural = random_natural(ONE)
    with relaxed_promotion():
        distribution = family.distribution(natural)
        values = distribution.sample(jr.key(1), (4,))
        log_prob, entropy = distribution.log_prob(values), distribution.entropy()
    assert distribution.batch_shape == (3,)
    expected = jax.vmap(lambda x: inner(natural, statistics(x)) - family.log_partition(natural))(values)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(entropy, family.entropy(natural), rtol=1e-9)


@value_families
def test_the_reference_point(family, random_natural, statistics):
    natural = random_natural(ONE)
    value, product = family.reference(natural)
    assert value.shape == family.points(natural)[0].shape
    np.testing.assert_allclose(product, inner(natural, statistics(value)), atol=1e-12)


@value_families
def test_the_initial_member_is_proper(family, random_natural, statistics):
    value = family.points(random_natural(ONE))[0].astype(jnp.float32)
    initial = family.initial(value)
    assert {entry.dtype for entry in initial.values()} == {value.dtype}
    points = family.points(initial)
    assert points.shape[1:] == value.shape and points.dtype == value.dtype
    assert jnp.isfinite(points).all() and jnp.isfinite(family.log_partition(initial)).all()
    assert family.log_partition(initial).shape == (3,) and family.entropy(initial).shape == (3,)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("concentration", [0.03, 0.1, 1.0, 100.0])
def test_points_of_a_gamma_far_from_its_mean(concentration, dtype):
    natural = {"linear": jnp.array(-2.0, dtype), "log": jnp.array(concentration - 1.0, dtype)}
    points = Gamma().points(natural)
    assert points.dtype == dtype
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(points.mean(), concentration / 2, rtol=tolerance * max(1, 0.1 / concentration))
    mean_log = special.digamma(concentration) - np.log(2)
    np.testing.assert_allclose(jnp.log(points).mean(), mean_log, rtol=0, atol=tolerance * abs(mean_log))


@pytest.mark.parametrize("axis", [-1, -2])
def test_categorical(axis):
    family, logits = Categorical(axis), 3 * normal(ONE, 3, 4)
    natural = {"onehot": logits}
    mean = family.means(natural)["onehot"]
    np.testing.assert_allclose(mean, special.softmax(logits, axis), rtol=1e-12)
    np.testing.assert_allclose(mean, means_of(family, natural)["onehot"], rtol=1e-12)
    expected = -(special.softmax(logits, axis) * special.log_softmax(logits, axis)).sum()
    np.testing.assert_allclose(family.entropy(natural), expected, rtol=1e-12)
    np.testing.assert_allclose(family.log_partition(natural).sum() - (logits * mean).sum(), expected, rtol=1e-10)
    with relaxed_promotion():
        distribution = family.distribution(natural)
        assert distribution.batch_shape == {-1: (3,), -2: (4,)}[axis]
        probs = jnp.exp(distribution.log_prob(distribution.enumerate_support()))
        value = distribution.sample(jr.key(0))
        assert distribution.sufficient_statistics(value)["onehot"].shape == logits.shape
    np.testing.assert_allclose(jnp.moveaxis(probs, 0, axis), mean, rtol=1e-12)


def test_certain_states_have_no_entropy():
    assert float(Categorical().entropy({"onehot": jnp.array([1e4, 0.0, -1e4])})) == 0


@pytest.mark.parametrize(("num_states", "length"), [(2, 5), (3, 2)])
def test_chain_means_are_sums_over_all_paths(num_states, length):
    batch = (2, 2)
    natural = {
        "onehot": 2 * normal(ONE, *batch, length, num_states),
        "pair": 2 * normal(OTHER, *batch, length - 1, num_states, num_states),
    }
    paths = np.array(list(itertools.product(range(num_states), repeat=length)))
    onehot = np.eye(num_states)[paths]
    pair = onehot[:, :-1, :, None] * onehot[:, 1:, None, :]
    potential = np.einsum("ntk,bctk->nbc", onehot, natural["onehot"])
    potential += np.einsum("ntij,bctij->nbc", pair, natural["pair"])
    probs = special.softmax(potential, 0)
    family = Chain()
    np.testing.assert_allclose(family.log_partition(natural), special.logsumexp(potential, 0), rtol=1e-12)
    means = jax.jit(family.means)(natural)
    np.testing.assert_allclose(means["onehot"], np.einsum("nbc,ntk->bctk", probs, onehot), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(means["pair"], np.einsum("nbc,ntij->bctij", probs, pair), rtol=1e-10, atol=1e-12)
    entropy = jax.jit(family.entropy)(natural)
    np.testing.assert_allclose(entropy, -(probs * np.log(probs)).sum(), rtol=1e-10)
    with relaxed_promotion():
        marginals = family.distribution(natural)
    assert marginals.batch_shape == (*batch, length)
    np.testing.assert_allclose(marginals.probs, means["onehot"], rtol=1e-12)


def test_the_family_of_a_latent():
    zeros = jnp.zeros(2)
    with relaxed_promotion():
        assert value_family(dist.Normal(zeros, 1.0)) == Gaussian(0)
        assert value_family(dist.MultivariateNormal(zeros, jnp.eye(2))) == Gaussian(1)
        assert value_family(dist.Gamma(1.0, 1.0)) == Gamma()
        for other in [
            dist.Normal(zeros, 1.0).to_event(1),
            dist.LogNormal(0.0, 1.0),
            dist.StudentT(3.0),
            dist.InverseGamma(1.0, 1.0),
            dist.TruncatedNormal(low=0.0),
            dist.LowRankMultivariateNormal(zeros, jnp.ones((2, 1)), jnp.ones(2)),
            ComplexInverseWishart(3.0, jnp.array([1.0, 1.0, 0.0, 0.0])),
        ]:
            assert value_family(other) is None
            assert statistics_family(other) is None
        assert statistics_family(Indicator(zeros, -2)) == Categorical(-2)
        assert statistics_family(MarkovChain(zeros, jnp.zeros((2, 2)), 3)) == Chain()
        assert statistics_family(dist.Categorical(logits=zeros)) is None
