import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from state_space_reference import joint_normal

from vbss.context import relaxed_promotion
from vbss.distributions import GaussMarkovChain
from vbss.errors import InputError

SIZE, LENGTH, STATES = 2, 5, 3

log_prob = jax.jit(lambda distribution, value: distribution.log_prob(value))
moments = jax.jit(lambda distribution: (distribution.mean, distribution.variance))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def positive(seed, *shape):
    root = normal(seed, *shape[:-1], shape[-1] + 2)
    return root @ root.swapaxes(-1, -2)


def plain(*batch, length=LENGTH):
    """Arguments of a chain without a gate."""
    return {
        "initial_loc": jnp.asarray(normal(0, *batch, SIZE)),
        "initial_precision": jnp.asarray(positive(1, *batch, SIZE, SIZE)),
        "transition": jnp.asarray(normal(2, *batch, SIZE, SIZE)),
        "precision": jnp.asarray(positive(3, *batch, SIZE, SIZE)),
        "length": length,
        "offset": jnp.asarray(normal(4, *batch, SIZE)),
    }


def gated(path, *batch):
    """Arguments of a chain whose steps take the dynamics named by the path, integers (*batch, T-1)."""
    path = jnp.asarray(path)
    return plain(*batch, length=path.shape[-1] + 1) | {
        "transition": jnp.asarray(normal(5, *batch, STATES, SIZE, SIZE)),
        "precision": jnp.asarray(positive(6, *batch, STATES, SIZE, SIZE)),
        "offset": jnp.asarray(normal(7, *batch, STATES, SIZE)),
        "gate": jax.nn.one_hot(path, STATES, dtype=float),
    }


CASES = {"plain": plain(), "switching": gated([2, 0, 0, 1])}


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_the_chain_is_its_joint_normal(arguments):
    chain = GaussMarkovChain(**arguments)
    mean, covariance = joint_normal(**arguments)
    assert chain.batch_shape == () and chain.event_shape == (LENGTH, SIZE)
    values = normal(8, 3, LENGTH, SIZE)
    reference = stats.multivariate_normal(mean.ravel(), covariance.reshape(LENGTH * SIZE, -1))
    np.testing.assert_allclose(log_prob(chain, values), reference.logpdf(values.reshape(3, -1)), rtol=1e-10)
    variance = np.diagonal(covariance.reshape(LENGTH * SIZE, -1)).reshape(LENGTH, SIZE)
    for actual, expected in zip(moments(chain), (mean, variance), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_draws_have_the_joint_moments(arguments):
    num_draws = 20_000
    values = np.asarray(draw(GaussMarkovChain(**arguments), jr.key(0), (num_draws,)))
    mean, covariance = joint_normal(**arguments)
    flat = covariance.reshape(LENGTH * SIZE, -1)
    centred = (values - mean).reshape(num_draws, -1)
    scale = np.sqrt(np.diagonal(flat))
    assert (np.abs(centred.mean(0)) < 5 * scale / num_draws**0.5).all()
    # The variance of a product of two jointly normal variables.
    error = np.sqrt((np.outer(scale**2, scale**2) + flat**2) / num_draws)
    assert (np.abs(centred.T @ centred / num_draws - flat) < 5 * error).all()


def test_numpyros_state_space_and_random_walk():
    transition, precision = jnp.asarray(normal(0, SIZE, SIZE)), jnp.asarray(positive(1, SIZE, SIZE))
    chain = GaussMarkovChain(jnp.zeros(SIZE), precision, transition, precision, LENGTH)
    reference = dist.GaussianStateSpace(LENGTH, transition, precision_matrix=precision)
    values = normal(2, 3, LENGTH, SIZE)
    np.testing.assert_allclose(log_prob(chain, values), log_prob(reference, values), rtol=1e-10)
    np.testing.assert_allclose(moments(chain)[1], moments(reference)[1], rtol=1e-10)
    one = jnp.ones((1, 1))
    walk = GaussMarkovChain(jnp.zeros(1), 4 * one, one, 4 * one, LENGTH)
    reference = log_prob(dist.GaussianRandomWalk(0.5, LENGTH), values[..., 0])
    np.testing.assert_allclose(log_prob(walk, values[..., :1]), reference, rtol=1e-12)


def test_the_log_density_is_affine_in_the_gate():
    value = normal(0, LENGTH, SIZE)
    weights = np.random.default_rng(1).dirichlet(np.ones(STATES), LENGTH - 1)
    arguments = gated([0, 0, 0, 0])
    found = log_prob(GaussMarkovChain(**arguments | {"gate": jnp.asarray(weights)}), value)
    # Every step's own contribution, above a path that stays in state 0.
    base = log_prob(GaussMarkovChain(**arguments), value)
    expected = base
    for t in range(LENGTH - 1):
        for k in range(STATES):
            path = np.zeros(LENGTH - 1, int)
            path[t] = k
            expected += weights[t, k] * (log_prob(GaussMarkovChain(**gated(path)), value) - base)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("switches", [False, True])
def test_batches_broadcast_and_are_independent(switches):
    # Every argument has a batch of its own rank.
    path = np.array([[0, 1, 2, 0], [2, 2, 1, 1]])
    arguments = gated(path, 2) if switches else plain(2)
    arguments |= {"initial_loc": jnp.asarray(normal(9, 3, 1, SIZE)), "initial_precision": plain()["initial_precision"]}
    chain = GaussMarkovChain(**arguments)
    assert chain.batch_shape == (3, 2) and chain.event_shape == (LENGTH, SIZE)
    values = draw(chain, jr.key(0), (4,))
    assert values.shape == (4, 3, 2, LENGTH, SIZE)
    found, (mean, variance) = log_prob(chain, values), moments(chain)
    assert mean.shape == variance.shape == (3, 2, LENGTH, SIZE)
    for i in (0, 2):
        for j in range(2):
            single = {key: a[j] for key, a in arguments.items() if key not in ("length", "initial_precision")}
            single |= {"initial_loc": arguments["initial_loc"][i, 0], "length": LENGTH}
            one = GaussMarkovChain(**single, initial_precision=arguments["initial_precision"])
            np.testing.assert_allclose(found[:, i, j], log_prob(one, values[:, i, j]), rtol=1e-10)
            for together, alone in zip((mean, variance), moments(one), strict=True):
                np.testing.assert_allclose(together[i, j], alone, rtol=1e-10)


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_it_expands_masks_and_maps(arguments):
    chain = GaussMarkovChain(**arguments)
    values = draw(chain, jr.key(1), (4,))
    expected = log_prob(chain, values)
    expanded = chain.expand((4,))
    np.testing.assert_allclose(log_prob(expanded, values), expected, rtol=1e-12)
    mask = jnp.array([True, False, True, False])
    np.testing.assert_allclose(log_prob(expanded.mask(mask), values), jnp.where(mask, expected, 0), rtol=1e-12)
    leaves, structure = jax.tree.flatten(chain)
    again = jax.tree.unflatten(structure, leaves)
    assert again.length == LENGTH and again.event_shape == chain.event_shape
    np.testing.assert_array_equal(log_prob(again, values), expected)
    mapped = jax.vmap(lambda loc, v: GaussMarkovChain(**arguments | {"initial_loc": loc}).log_prob(v))
    np.testing.assert_allclose(mapped(jnp.broadcast_to(chain.initial_loc, (4, SIZE)), values), expected, rtol=1e-12)
    assert chain.support(values).all() and not chain.support(values.at[0, 1, 0].set(jnp.nan))[0]


def test_single_precision_stays_single():
    chain = jax.tree.map(lambda x: x.astype(jnp.float32), GaussMarkovChain(**CASES["switching"]))
    value = draw(chain, jr.key(0), ())
    gradient = jax.jit(jax.grad(lambda chain: chain.log_prob(value)))(chain)
    leaves = [value, log_prob(chain, value), *moments(chain), *jax.tree.leaves(gradient)]
    assert all(leaf.dtype == jnp.float32 and jnp.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 1}, "length must be a whole number, 2 or more"),
        ({"initial_loc": jnp.zeros(3)}, r"initial_loc must end in \(2,\)"),
        ({"initial_precision": jnp.eye(3)}, r"initial_precision must end in \(2, 2\)"),
        ({"transition": jnp.zeros((2, 3))}, "transition must end in two equal axes"),
        ({"precision": jnp.eye(3)}, r"precision must end in \(2, 2\).*got shape \(3, 3\)"),
        ({"offset": jnp.zeros(1)}, r"offset must end in \(2,\)"),
        ({"gate": jnp.ones((4, 3))}, r"transition must end in \(3, 2, 2\).*4 steps of 3 states"),
        ({"offset": jnp.zeros((3, 2)), "initial_loc": jnp.zeros((2, 2))}, "batch shapes must broadcast"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        GaussMarkovChain(**plain() | change)


def test_a_gate_of_another_length_is_refused():
    with pytest.raises(InputError, match=r"gate must end in \(3, 3\)"):
        GaussMarkovChain(**gated([0, 1, 2, 0]) | {"length": 4})


def test_a_precision_that_is_none_is_refused_on_demand():
    with pytest.raises(ValueError, match="precision"):
        GaussMarkovChain(**plain() | {"precision": -jnp.eye(SIZE)}, validate_args=True)


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_derivatives_are_those_of_the_sum_over_steps(arguments):
    """With respect to transition, offset, precision and path, first and second, mixed too."""
    names = ("transition", "offset", "precision")
    value = jnp.asarray(normal(9, LENGTH, SIZE))
    rest = {name: array for name, array in arguments.items() if name not in names}

    def own(unknowns, value):
        return GaussMarkovChain(**rest, **unknowns).log_prob(value)

    def by_steps(unknowns, value):
        gate = arguments.get("gate", jnp.ones((LENGTH - 1, 1)))
        many = unknowns if "gate" in arguments else {name: array[None] for name, array in unknowns.items()}
        residual = value[1:, None] - jnp.einsum("kij,tj->tki", many["transition"], value[:-1]) - many["offset"]
        squares = jnp.einsum("tki,kij,tkj->tk", residual, many["precision"], residual)
        symmetric = (many["precision"] + jnp.swapaxes(many["precision"], -1, -2)) / 2
        steps = (jnp.linalg.slogdet(symmetric)[1] - squares) / 2
        first = value[0] - arguments["initial_loc"]
        return (gate * steps).sum() - first @ arguments["initial_precision"] @ first / 2

    unknowns = {name: arguments[name] for name in names}
    derivatives = [
        jax.jit(lambda u, v, f=f: (jax.grad(f, (0, 1))(u, v), jax.hessian(f, (0, 1))(u, v))) for f in (own, by_steps)
    ]
    found, expected = (of(unknowns, value) for of in derivatives)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected)


def test_small_steps_of_large_values_in_single_precision():
    with relaxed_promotion():
        path = 1000 + np.cumsum(normal(10, 200, 1), 0) / 100
        exact = stats.norm(0, 0.01).logpdf(np.diff(path.astype(np.float32).astype(float), axis=0)).sum()
        one = jnp.ones((1, 1), jnp.float32)
        path = jnp.asarray(path, jnp.float32)
        chain = GaussMarkovChain(path[0], one, one, 1e4 * one, 200)
        found = chain.log_prob(path) + jnp.log(2 * jnp.pi) / 2
    np.testing.assert_allclose(found, exact, rtol=1e-4)
