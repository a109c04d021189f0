import itertools
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from scipy import special, stats

import vbss
from vbss.context import relaxed_promotion
from vbss.distributions import ComplexMultivariateNormal

SIZES = {"t": 4, "d": 3, "n": 5, "m": 2, "k": 3}


def shape_of(axes):
    return tuple(SIZES[letter] for letter in axes)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def positive(seed, *shape):
    return jnp.exp(normal(seed, *shape) / 2)


def one_hot(seed, axes):
    states = np.random.default_rng(seed).integers(0, SIZES[axes[-1]], shape_of(axes[:-1]))
    return jnp.asarray(np.eye(SIZES[axes[-1]])[states])


def counts(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).poisson(2.0, shape))


def lower(seed, *shape):
    return jnp.tril(normal(seed, *shape), -1) + jnp.broadcast_to(jnp.eye(shape[-1]), shape)


def complex_normal(seed, *shape):
    return jax.lax.complex(normal(seed, *shape), normal(seed + 1, *shape))


class Case(NamedTuple):
    """Gates, {name: (axes of the batch, array)} and an observation of a distribution."""

    cls: Any
    plates: str
    gates: tuple[str, ...]
    parameters: dict[str, tuple[str, Array]]
    value: Array
    events: dict[str, str] = {}

    def gated(self, gates=None, **options):
        arrays = {axes: one_hot(i, axes) for i, axes in enumerate(self.gates)} if gates is None else gates
        labelled = {name: (axes + self.events.get(name, ""), a) for name, (axes, a) in self.parameters.items()}
        return vbss.Gated(self.plates, arrays, vbss.Expanded(self.cls, **options, **labelled))


CASES = {
    "counts": Case(dist.Poisson, "n", ("nk",), {"rate": ("k", positive(1, 3))}, counts(2, 5)),
    "gates that cross plates": Case(
        dist.Normal,
        "td",
        ("tdm", "mk"),
        {"loc": ("mkd", normal(1, 2, 3, 3)), "scale": ("d", positive(2, 3))},
        normal(3, 4, 3),
    ),
    "plates and states in any order": Case(
        dist.StudentT,
        "td",
        ("tdk",),
        {"loc": ("dkt", normal(1, 3, 3, 4)), "df": ("", jnp.array(3.0)), "scale": ("t", positive(2, 4))},
        normal(3, 4, 3),
    ),
    "a gate behind a gate": Case(dist.Laplace, "td", ("tdm", "mk"), {"loc": ("k", normal(1, 3))}, normal(3, 4, 3)),
    "no gate": Case(dist.Gumbel, "n", (), {"loc": ("n", normal(1, 5))}, normal(2, 5)),
    "vectors": Case(
        dist.MultivariateNormal,
        "n",
        ("nk",),
        {"loc": ("k", normal(1, 3, 2)), "scale_tril": ("n", lower(2, 5, 2, 2))},
        normal(3, 5, 2),
        {"loc": "x", "scale_tril": "xy"},
    ),
    "complex vectors": Case(
        ComplexMultivariateNormal,
        "n",
        ("nk",),
        {"loc": ("k", complex_normal(1, 3, 2)), "scale_tril": ("k", lower(3, 3, 2, 2))},
        complex_normal(4, 5, 2),
        {"loc": "x", "scale_tril": "xy"},
    ),
    "a function that chooses the class": Case(
        dist.Binomial,
        "n",
        ("nk",),
        {"total_count": ("n", jnp.array([8, 9, 10, 11, 12])), "probs": ("k", jnp.array([0.2, 0.5, 0.7]))},
        counts(2, 5),
    ),
    "arguments of a base": Case(
        dist.TruncatedNormal,
        "n",
        ("nk",),
        {"loc": ("k", normal(1, 3)), "low": ("", jnp.array(-9.0))},
        normal(2, 5),
    ),
    "categories": Case(
        dist.Categorical,
        "n",
        ("nk",),
        {"probs": ("k", jax.nn.softmax(normal(1, 3, 4)))},
        counts(2, 5) % 4,
        {"probs": "c"},
    ),
}


def selected(case, gated, element):
    """The parameters that one element of the plates sees, by following the gates' indices."""
    index = dict(zip(case.plates, element, strict=True))
    pending = {axes: np.asarray(gate.array) for axes, gate in zip(case.gates, gated.gates, strict=True)}
    while pending:
        axes = next(a for a in pending if all(letter in index for letter in a[:-1]))
        index[axes[-1]] = int(pending.pop(axes)[tuple(index[letter] for letter in axes[:-1])].argmax())
    return {name: array[tuple(index[letter] for letter in axes)] for name, (axes, array) in case.parameters.items()}


def naive_log_prob(case, gated):
    result = np.zeros(shape_of(case.plates))
    with relaxed_promotion():
        for element in itertools.product(*map(range, result.shape)):
            result[element] = case.cls(**selected(case, gated, element)).log_prob(case.value[element])
    return result


@jax.jit
def total(gated, value, mask=None):
    return gated.total(gated.statistics(value), mask)


log_prob = jax.jit(lambda gated, value: gated.log_prob(value))


@jax.jit
def faces(gated, in_pieces, value, mask):
    statistics = gated.statistics(value)
    totals = gated.total(statistics), gated.total(statistics, mask), in_pieces.total(statistics, mask)
    return gated.log_prob(value), *totals


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_faces_are_the_distribution_that_the_gates_select(case):
    gated = case.gated()
    expected = naive_log_prob(case, gated)
    mask = np.random.default_rng(1).uniform(size=expected.shape) < 0.6
    elementwise, whole, masked, masked_in_pieces = faces(gated, case.gated(max_bytes=1), case.value, mask)
    assert gated.batch_shape == shape_of(case.plates) == elementwise.shape
    assert gated.event_shape == case.value.shape[len(case.plates) :]
    np.testing.assert_allclose(elementwise, expected, rtol=1e-9)
    np.testing.assert_allclose(whole, expected.sum(), rtol=1e-9)
    np.testing.assert_allclose(masked, expected[mask].sum(), rtol=1e-9)
    np.testing.assert_allclose(masked_in_pieces, expected[mask].sum(), rtol=1e-9)


def test_values_and_derivatives_are_those_of_the_exponential_family():
    value, mask = normal(0, 4, 3), jnp.asarray(np.random.default_rng(0).uniform(size=(4, 3)) < 0.7)
    gates = {"tdm": jax.nn.softmax(normal(1, 4, 3, 2)), "mk": jax.nn.softmax(normal(2, 2, 3))}

    def of_family(gates, loc, precision):
        return total(vbss.Gated("td", gates, vbss.Normal(("mkd", loc), ("d", precision))), value, mask)

    def expanded(max_bytes, gates, loc, precision):
        density = vbss.Expanded(dist.Normal, loc=("mkd", loc), scale=("d", precision**-0.5), max_bytes=max_bytes)
        return total(vbss.Gated("td", gates, density), value, mask)

    @jax.jit
    def derivatives(*parameters):
        def of(function):
            slope = partial(jax.grad(function, (1, 2)), parameters[0])
            _, curvature = jax.jvp(slope, parameters[1:], parameters[1:])
            return *jax.value_and_grad(function, (0, 1, 2))(*parameters), curvature

        return [of(function) for function in (of_family, partial(expanded, 2**20), partial(expanded, 100))]

    expected, *results = derivatives(gates, normal(3, 2, 3, 3), positive(4, 3))
    for result in results:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), result, expected)


def test_pieces_of_any_length_are_the_whole():
    # The longest plate is not the last; one parameter and one gate lack it; its pieces do not come out even.
    arrays = {
        "logits": normal(0, 11, 3, 2),
        "prior": normal(1, 2, 2),
        "loc": normal(2, 2, 11, 3),
        "scale": positive(3, 2),
    }
    value, mask = normal(4, 11, 3), jnp.asarray(np.random.default_rng(0).uniform(size=(11, 3)) < 0.7)

    def at(max_bytes, arrays):
        gates = {"tdm": jax.nn.softmax(arrays["logits"]), "mk": jax.nn.softmax(arrays["prior"])}
        density = vbss.Expanded(
            dist.Normal, loc=("ktd", arrays["loc"]), scale=("k", arrays["scale"]), max_bytes=max_bytes
        )
        gated = vbss.Gated("td", gates, density)
        return gated.total(gated.statistics(value), mask)

    sizes = [2**20, 300]
    results = jax.jit(lambda arrays: [jax.value_and_grad(partial(at, size))(arrays) for size in sizes])(arrays)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), *results)


def test_memory_is_bounded_forwards_and_backwards():
    num, states, budget = 20_000, 50, 2**20

    def objective(max_bytes, loc, value, gate):
        gated = vbss.Gated("n", {"nk": gate}, vbss.Expanded(dist.Cauchy, loc=("k", loc), max_bytes=max_bytes))
        return gated.total(gated.statistics(value))

    def peak(max_bytes):
        function = jax.jit(jax.value_and_grad(partial(objective, max_bytes)))
        compiled = function.lower(jnp.zeros(states), jnp.zeros(num), jnp.ones((1, states))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Backwards, several such arrays exist at once.
    assert peak(2**30) >= 4 * num * states * 8
    assert peak(budget) < 8 * budget


def test_the_impossible_has_no_weight_where_it_has_no_probability():
    value, rate = jnp.array([0, 3]), jnp.array([0.0, 2.0])

    def objective(gate):
        gated = vbss.Gated("n", {"nk": gate}, vbss.Expanded(dist.Poisson, rate=("k", rate)))
        return gated.total(gated.statistics(value))

    bound, slope = jax.value_and_grad(objective)(jnp.array([[0.5, 0.5], [0.0, 1.0]]))
    expected = stats.poisson.logpmf([[0], [3]], [0, 2])
    np.testing.assert_allclose(bound, expected[0].mean() + expected[1, 1], rtol=1e-12)
    np.testing.assert_allclose(slope, np.maximum(expected, -1e30), rtol=1e-12)


def test_leading_axes_of_the_value_and_of_parameters_are_kept():
    case = CASES["vectors"]
    gated = case.gated()
    values = jnp.stack([case.value, 2 * case.value])
    found = log_prob(gated, values)
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found[1], log_prob(gated, 2 * case.value), rtol=1e-9)
    loc = case.parameters["loc"][1]
    moved = case._replace(parameters={**case.parameters, "loc": ("k", jnp.stack([loc, 2 * loc]))}).gated()
    twice = case._replace(parameters={**case.parameters, "loc": ("k", 2 * loc)}).gated()
    np.testing.assert_allclose(log_prob(moved, case.value)[1], log_prob(twice, case.value), rtol=1e-9)


def test_an_enumerated_gate_gives_the_density_under_each_state():
    case = CASES["counts"]
    every_state = jnp.eye(3).reshape(3, 1, 3)  # as NumPyro's enumeration hands it on
    found = case.gated({"nk": every_state}).log_prob(case.value)
    rate = np.asarray(case.parameters["rate"][1])
    np.testing.assert_allclose(found, stats.poisson.logpmf(case.value, rate[:, None]), rtol=1e-9)


@pytest.mark.parametrize("name", ["gates that cross plates", "complex vectors"])
def test_draws_have_the_moments_of_the_selected_parameters(name):
    case, num = CASES[name], 4000
    gated = case.gated()
    draws = np.asarray(jax.jit(lambda g, key: g.sample(key, (num,)))(gated, jr.key(1)))
    assert draws.shape == (num, *gated.batch_shape, *gated.event_shape)
    for element in itertools.product(*map(range, gated.batch_shape)):
        with relaxed_promotion():
            fn = case.cls(**selected(case, gated, element))
        error = np.abs(draws[(slice(None), *element)].mean(0) - np.asarray(fn.mean))
        assert (error < 5 * np.sqrt(np.asarray(fn.variance) / num)).all()


def test_draws_of_counts_out_of_whole_numbers():
    case = CASES["a function that chooses the class"]
    draws = jax.jit(lambda g, key: g.sample(key, (50,)))(case.gated(), jr.key(0))
    assert jnp.issubdtype(draws.dtype, jnp.integer) and draws.shape == (50, 5)
    assert (draws <= case.parameters["total_count"][1][None]).all() and (draws >= 0).all() and draws.max() > 0


def test_pytree_and_vmap():
    case = CASES["gates that cross plates"]
    gated = case.gated()
    leaves, structure = jax.tree.flatten(gated)
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_allclose(total(again, case.value), total(gated, case.value), rtol=1e-12)

    def at(loc):
        density = vbss.Expanded(dist.Normal, loc=("mkd", loc), scale=case.parameters["scale"], max_bytes=100)
        return total(vbss.Gated("td", {g.axes: g.array for g in gated.gates}, density), case.value)

    locs = jnp.stack([case.parameters["loc"][1], normal(7, 2, 3, 3)])
    np.testing.assert_allclose(jax.vmap(at)(locs), [at(locs[0]), at(locs[1])], rtol=1e-9)


def test_single_precision_stays_single():
    density = vbss.Expanded(dist.Poisson, rate=("k", jnp.ones(3, jnp.float32)))
    gated = vbss.Gated("n", {"nk": jnp.ones((5, 3), jnp.float32)}, density)
    value = CASES["counts"].value
    assert gated.total(gated.statistics(value)).dtype == jnp.float32
    assert gated.log_prob(value).dtype == jnp.float32


class PoissonMixture(vbss.Model):
    log_weights: Annotated[Array, vbss.Simplex()]
    rate: Annotated[Array, vbss.Precision()]

    schedule = ("log_weights", "rate", "z")  # the E-step last: every bound is tight

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            z = vbss.indicator("z", self.log_weights)
            numpyro.sample("y", vbss.Gated("n", {"nk": z}, vbss.Expanded(dist.Poisson, rate=("k", self.rate))), obs=y)


class LatentClasses(vbss.Model):
    """Persons n of a class k answer items i with categories c, each class with its own habits."""

    log_weights: Annotated[Array, vbss.Simplex()]
    log_probs: Annotated[Array, vbss.Simplex()]

    schedule = ("log_weights", "log_probs", "z")

    def __call__(self, y):
        with numpyro.plate("n", y.shape[1], dim=-1):
            z = vbss.indicator("z", self.log_weights)
            with numpyro.plate("i", y.shape[0], dim=-2):
                density = vbss.Expanded(dist.CategoricalProbs, probs=("kic", jnp.exp(self.log_probs)))
                numpyro.sample("y", vbss.Gated("in", {"nk": z}, density), obs=y)


def textbook_em(log_likelihood, maximize, log_weights, parameter, num_steps):
    """EM of a mixture by hand: the log evidence at the start and after each step, then the parameters."""
    evidence = []
    for _ in range(num_steps):
        joint = log_weights + log_likelihood(parameter)
        evidence.append(special.logsumexp(joint, -1).sum())
        responsibilities = special.softmax(joint, -1)
        log_weights, parameter = np.log(responsibilities.mean(0)), maximize(responsibilities)
    evidence.append(special.logsumexp(log_weights + log_likelihood(parameter), -1).sum())
    return np.asarray(evidence), log_weights, parameter


def fitted(model, y, log_likelihood, parameter, num_steps):
    """`vbss.fit` from the responsibilities with which the textbook begins; its first bound precedes all steps."""
    probs = special.softmax(np.asarray(model.log_weights) + log_likelihood(parameter), -1)
    return vbss.fit(model, y, vbss.EM(tolerance=0.0), start={"z": probs}, max_steps=num_steps)


def test_a_poisson_mixture_is_learnt_by_exact_em():
    y = np.random.default_rng(0).poisson(np.repeat([2.0, 9.0], [30, 20]))
    rate, log_weights = np.array([1.0, 4.0]), np.log([0.3, 0.7])

    def log_likelihood(rate):
        return stats.poisson.logpmf(y[:, None], rate)

    model = PoissonMixture(jnp.asarray(log_weights), jnp.asarray(rate))
    solution = fitted(model, y, log_likelihood, rate, 10)
    evidence, expected_weights, expected = textbook_em(
        log_likelihood, lambda r: (r * y[:, None]).sum(0) / r.sum(0), log_weights, rate, 10
    )
    np.testing.assert_allclose(solution.elbo, evidence, rtol=1e-10)
    np.testing.assert_allclose(solution.model.rate, expected, rtol=1e-9)
    np.testing.assert_allclose(solution.model.log_weights, expected_weights, rtol=1e-9)


def test_latent_classes_are_learnt_by_exact_em():
    generator = np.random.default_rng(0)
    habits = generator.dirichlet(np.full(4, 0.5), (2, 3))  # (k, i, c)
    y = np.stack([[generator.choice(4, p=habits[n % 2, i]) for n in range(60)] for i in range(3)])
    log_weights, log_probs = np.log([0.4, 0.6]), np.log(generator.dirichlet(np.full(4, 3.0), (2, 3)))
    answers = np.eye(4)[y]  # (i, n, c)

    def log_likelihood(log_probs):
        return np.einsum("inc,kic->nk", answers, log_probs)

    def maximize(responsibilities):
        expected = np.einsum("inc,nk->kic", answers, responsibilities)
        return np.log(np.maximum(expected / expected.sum(-1, keepdims=True), np.finfo(float).tiny))

    model = LatentClasses(jnp.asarray(log_weights), jnp.asarray(log_probs))
    solution = fitted(model, y, log_likelihood, log_probs, 10)
    evidence, _, expected = textbook_em(log_likelihood, maximize, log_weights, log_probs, 10)
    np.testing.assert_allclose(solution.elbo, evidence, rtol=1e-10)
    np.testing.assert_allclose(np.exp(solution.model.log_probs), np.exp(expected), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: vbss.Expanded(dist.Poisson, rate=jnp.ones(3)), r"Expanded: rate must be a pair \(axes, array\), got"),
        (lambda: vbss.Expanded(dist.Poisson, rates=("k", jnp.ones(3))), r"Poisson has no parameter 'rates'; .*'rate'"),
        (lambda: vbss.Expanded(dist.MultivariateNormal, loc=("", jnp.ones(3))), "loc must have 1 event axes.* are ''"),
        (lambda: vbss.Expanded(dist.Poisson, rate=("K", jnp.ones(3))), "letters, got 'K'"),
        (lambda: vbss.Expanded(dist.Poisson, rate=("kn", jnp.ones(3))), r"'kn' name 2 dimensions, .*\(3,\)"),
        (lambda: gated_poisson("nk", "j", 3), "axis 'j' of .* neither a plate nor in a gate"),
        (lambda: gated_poisson("nk", "k", 4), r"axis 'k' has size 3 .* 4"),
        (lambda: gated_categories("n"), "axis 'n' of the parameter with axes 'kn' is an event's, but also a plate or"),
        (lambda: gated_categories("k", "j"), "axis 'k' of the parameter with axes 'jk' is an event's, but also"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def gated_poisson(gate, axes, size):
    return vbss.Gated("n", {gate: jnp.ones(shape_of(gate))}, vbss.Expanded(dist.Poisson, rate=(axes, jnp.ones(size))))


def gated_categories(event, state="k"):
    density = vbss.Expanded(dist.Categorical, probs=(state + event, jnp.full((3, 2), 0.5)))
    return vbss.Gated("n", {"nk": jnp.ones((5, 3)), "nj": jnp.ones((5, 3))}, density)


def test_an_observation_of_another_size_is_refused():
    gated = CASES["vectors"].gated()
    for bad in (normal(0, 3, 2), normal(0, 5, 1), normal(0, 2)):
        with pytest.raises(ValueError, match=r"must have shape \(5, 2\)"):
            gated.log_prob(bad)
