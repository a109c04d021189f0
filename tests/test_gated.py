import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

import vbss
from vbss.densities.labelled import Labelled, summed_product
from vbss.hermitian import inverse_and_log_determinant, pack

SIZES = {"t": 4, "f": 3, "d": 3, "n": 5, "m": 2, "k": 3, "j": 2, "i": 2}


def shape_of(axes):
    return tuple(SIZES[letter] for letter in axes)


def rng(seed):
    return np.random.default_rng(seed)


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape))


def complex_normal(rng, *shape):
    return jnp.asarray(rng.standard_normal((*shape, 2)) @ [1, 1j])


def positive(draw, rng, *shape):
    root = np.asarray(draw(rng, *shape[:-1], shape[-1] + 2))
    return jnp.asarray(root @ root.conj().swapaxes(-1, -2) / shape[-1] + 0.2 * np.eye(shape[-1]))


def scalars(rng, axes):
    return jnp.asarray(np.exp(rng.standard_normal(shape_of(axes))))


def one_hot(rng, axes):
    """One-hot along the last axis."""
    return jnp.asarray(np.eye(SIZES[axes[-1]])[rng.integers(0, SIZES[axes[-1]], shape_of(axes[:-1]))])


class Case(NamedTuple):
    """Axes of the plates, the gates (states last) and the density's parameters, event axes aside."""

    density: str
    plates: str
    gates: tuple[str, ...]
    parameters: tuple[str, ...]


CASES = {
    "mixture of scalars": Case("Normal", "n", ("nk",), ("k", "k")),
    "shared precision": Case("Normal", "n", ("nk",), ("k", "")),
    "a precision for each element": Case("Normal", "n", ("nk",), ("k", "n")),
    "gates that cross plates": Case("Normal", "td", ("tdm", "mk"), ("mkd", "d")),
    "a gate behind a gate": Case("Normal", "td", ("tdm", "mk"), ("k", "")),
    "two gates side by side": Case("Normal", "n", ("nk", "nj"), ("k", "j")),
    "a gate without plates": Case("Normal", "n", ("k",), ("kn", "k")),
    "a plate without parameters": Case("Normal", "tf", ("tfk",), ("k", "k")),
    "a gate that lacks a plate": Case("Normal", "tf", ("tk",), ("fk", "")),
    "states before plates": Case("Normal", "tf", ("tfk",), ("kt", "kf")),
    "no gate": Case("Normal", "tf", (), ("t", "f")),
    "mixture of vectors": Case("MultivariateNormal", "n", ("nk",), ("k", "k", None, None)),
    "an anchor": Case("MultivariateNormal", "n", ("nk",), ("k", "k", None, "anchor")),
    "weights": Case("MultivariateNormal", "n", ("nk",), ("k", "k", "nk", "anchor")),
    "a shared matrix": Case("MultivariateNormal", "tf", ("tfk",), ("fk", "", "t", None)),
    "a shared mean": Case("MultivariateNormal", "tf", ("tfm", "mk"), ("f", "kf", None, None)),
    "spatial mixture": Case("ComplexNormal", "ft", ("ftk", "kd"), ("fd", "fd", "kft", None)),
    "loading": Case("ComplexNormal", "ft", ("ftk", "kd"), ("fd", "fd", "kft", "ft")),
    "loading of each frequency": Case("ComplexNormal", "ft", ("ftk",), ("k", "k", "", "f")),
    "loading of each frame": Case("ComplexNormal", "ft", ("ftk",), ("k", "k", "f", "t")),
    "one loading": Case("ComplexNormal", "ft", ("ftk",), ("k", "k", "f", "")),
    "one plate": Case("ComplexNormal", "n", ("nk",), ("k", "k", "n", "n")),
}


def make(case):
    """The gated density of a case, its naive parameters {name: (axes, array)} and a value."""
    draws = rng(0)
    first, second, third, fourth = (*case.parameters, None, None)[:4]
    if case.density == "Normal":
        arrays = {"loc": (first, normal(draws, *shape_of(first))), "precision": (second, scalars(draws, second))}
        density = vbss.Normal(*arrays.values())
        value = normal(draws, *shape_of(case.plates))
    elif case.density == "MultivariateNormal":
        loc, precision = normal(draws, *shape_of(first), 2), positive(normal, draws, *shape_of(second), 2, 2)
        weight = None if third is None else (third, scalars(draws, third))
        anchor = None if fourth is None else jnp.array([1.0, -2.0])
        arrays = {"loc": (first, loc), "precision": (second, precision)} | (
            {} if weight is None else {"weight": weight}
        )
        density = vbss.MultivariateNormal((first + "x", loc), (second + "xy", precision), weight=weight, anchor=anchor)
        value = normal(draws, *shape_of(case.plates), 2)
    else:
        matrix = positive(complex_normal, draws, *shape_of(first), 2, 2)
        log_determinant = jnp.asarray(-np.linalg.slogdet(matrix)[1])
        scale = (third, scalars(draws, third))
        loading = None if fourth is None else (fourth, scalars(draws, fourth))
        arrays = {"precision": (first, matrix), "scale": scale} | ({} if loading is None else {"loading": loading})
        power = (third, 1 / scale[1])
        density = vbss.ComplexNormal((first + "p", pack(matrix)), (second, log_determinant), power, loading=loading)
        value = complex_normal(draws, *shape_of(case.plates), 2)
    gates = {axes: one_hot(draws, axes) for axes in case.gates}
    return vbss.Gated(case.plates, gates, density), arrays, value


def selected(case, gated, arrays, element):
    """The parameters that one element of the plates sees, by following the gates' indices."""
    index = dict(zip(case.plates, element, strict=True))
    pending = {axes: np.asarray(gate.array) for axes, gate in zip(case.gates, gated.gates, strict=True)}
    while pending:
        axes = next(a for a in pending if all(letter in index for letter in a[:-1]))
        index[axes[-1]] = int(pending.pop(axes)[tuple(index[letter] for letter in axes[:-1])].argmax())
    return {name: np.asarray(array)[tuple(index[letter] for letter in axes)] for name, (axes, array) in arrays.items()}


def naive_log_prob(case, gated, arrays, value):
    """The textbook density, element by element."""
    result = np.zeros(shape_of(case.plates))
    for element in itertools.product(*map(range, result.shape)):
        y, p = np.asarray(value[element]), selected(case, gated, arrays, element)
        if case.density == "Normal":
            result[element] = stats.norm.logpdf(y, p["loc"], p["precision"] ** -0.5)
        elif case.density == "MultivariateNormal":
            covariance = np.linalg.inv(p["precision"] * p.get("weight", 1.0))
            result[element] = stats.multivariate_normal.logpdf(y, p["loc"], covariance)
        else:
            precision, loading = p["scale"] * p["precision"], p.get("loading", 0.0)
            scatter = (np.outer(y, y.conj()) + loading * np.vdot(y, y).real / 2 * np.eye(2)) / (1 + loading)
            result[element] = np.linalg.slogdet(precision / np.pi)[1] - np.trace(precision @ scatter).real
    return result


log_prob = jax.jit(lambda gated, value: gated.log_prob(value))


@jax.jit
def total(gated, value, mask=None):
    return gated.total(gated.statistics(value), mask)


@jax.jit
def faces(gated, value, mask):
    statistics = gated.statistics(value)
    return gated.log_prob(value), gated.total(statistics), gated.total(statistics, mask)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_faces_are_the_textbook_density(case):
    gated, arrays, value = make(case)
    assert gated.batch_shape == shape_of(case.plates)
    assert gated.event_shape == (() if case.density == "Normal" else (2,))
    assert gated.support(value).all()
    expected = naive_log_prob(case, gated, arrays, value)
    mask = rng(1).uniform(size=expected.shape) < 0.6
    elementwise, whole, masked = faces(gated, value, mask)
    np.testing.assert_allclose(elementwise, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole, expected.sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(masked, expected[mask].sum(), rtol=1e-9, atol=1e-9)


MULTI_AFFINE = [
    "gates that cross plates",
    "two gates side by side",
    "weights",
    "a shared mean",
    "spatial mixture",
    "loading",
]


@pytest.mark.parametrize("name", MULTI_AFFINE)
def test_the_log_density_is_affine_in_each_gate(name):
    case = CASES[name]
    gated, _, value = make(case)
    for moving in range(len(case.gates)):

        def at(gate, moving=moving):
            gates = {axes: g.array for axes, g in zip(case.gates, gated.gates, strict=True)}
            gates[case.gates[moving]] = gate
            return vbss.Gated(case.plates, gates, gated.density)

        first, second = normal(rng(moving), 2, *gated.gates[moving].array.shape)
        ends = [log_prob(at(gate), value) for gate in (first, second)]
        assert not np.allclose(*ends)
        middle = at((first + second) / 2)
        np.testing.assert_allclose(log_prob(middle, value), (ends[0] + ends[1]) / 2, rtol=1e-9, atol=1e-9)
        # The two faces agree at any gates, not only at one-hots.
        np.testing.assert_allclose(total(middle, value), log_prob(middle, value).sum(), rtol=1e-9)


def test_a_mask_may_be_anything_that_spreads_over_the_plates():
    gated, _, value = make(CASES["gates that cross plates"])
    elementwise = np.asarray(log_prob(gated, value))
    columns = jnp.array([True, False, True])
    np.testing.assert_allclose(total(gated, value, columns), elementwise[:, [0, 2]].sum(), rtol=1e-12)
    assert total(gated, value, jnp.array(False)) == 0
    masked = gated.mask(columns).log_prob(value)
    np.testing.assert_allclose(masked, np.where(columns, elementwise, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gates that cross plates", "weights", "loading"])
def test_leading_axes_of_the_value_are_kept(name):
    gated, _, value = make(CASES[name])
    values = jnp.stack([value, 2 * value])
    np.testing.assert_allclose(log_prob(gated, values)[1], log_prob(gated, 2 * value), rtol=1e-9)
    assert log_prob(gated, values).shape == (2, *gated.batch_shape)


@pytest.mark.parametrize("name", ["gates that cross plates", "weights", "loading"])
def test_pytree_and_vmap(name):
    case = CASES[name]
    gated, _, value = make(case)
    leaves, structure = jax.tree.flatten(gated)
    again = jax.tree.unflatten(structure, leaves)
    assert again.batch_shape == gated.batch_shape and again.plates == gated.plates
    np.testing.assert_allclose(log_prob(again, value), log_prob(gated, value), rtol=1e-12)

    def of_gate(gate, value):
        gates = {axes: g.array for axes, g in zip(case.gates, gated.gates, strict=True)} | {case.gates[0]: gate}
        return total(vbss.Gated(case.plates, gates, gated.density), value)

    gates = jnp.stack([gated.gates[0].array, jnp.roll(gated.gates[0].array, 1, -1)])
    mapped = jax.vmap(of_gate)(gates, jnp.stack([value, 2 * value]))
    expected = [of_gate(gates[0], value), of_gate(gates[1], 2 * value)]
    np.testing.assert_allclose(mapped, expected, rtol=1e-9)


SAMPLED = [
    "gates that cross plates",
    "a gate behind a gate",
    "a plate without parameters",
    "a gate without plates",
    "weights",
    "a shared mean",
    "spatial mixture",
]


@pytest.mark.parametrize("name", SAMPLED)
def test_draws_have_the_moments_of_the_selected_parameters(name):
    case, num = CASES[name], 4000
    gated, arrays, _ = make(case)
    draws = np.asarray(jax.jit(lambda g, key: g.sample(key, (num,)))(gated, jr.key(1)))
    assert draws.shape == (num, *gated.batch_shape, *gated.event_shape)
    for element in itertools.product(*map(range, gated.batch_shape)):
        y, p = draws[(slice(None), *element)].reshape(num, -1), selected(case, gated, arrays, element)
        precision = np.atleast_2d(p["precision"]) * p.get("weight", 1.0) * p.get("scale", 1.0)
        # Whitened, every draw is standard: each statistic within five standard errors.
        whitened = (y - np.atleast_1d(p.get("loc", 0.0))) @ np.linalg.cholesky(precision).conj()
        size = whitened.shape[-1]
        assert np.abs(whitened.mean(0)).max() < 5 / np.sqrt(num)
        scatter = whitened.T @ whitened.conj() / num
        assert np.abs(scatter - np.eye(size)).max() < 5 * np.sqrt(2 / num)
        if case.density == "ComplexNormal":
            assert np.abs(whitened.T @ whitened / num).max() < 5 * np.sqrt(2 / num)  # circular
    flat = draws.reshape(num, -1)
    correlation = np.corrcoef(
        np.concatenate([flat.real, flat.imag], 1) if np.iscomplexobj(flat) else flat, rowvar=False
    )
    elements = np.kron(
        np.eye(int(np.prod(gated.batch_shape))), np.ones((draws[0].size // np.prod(gated.batch_shape),) * 2)
    )
    others = np.tile(elements == 0, (len(correlation) // len(elements),) * 2)
    assert np.abs(correlation[others]).max() < 5.5 / np.sqrt(num)  # elements are independent


def test_draws_without_sample_shape():
    gated, _, value = make(CASES["loading"])
    draw = gated.sample(jr.key(0))
    assert draw.shape == value.shape and draw.dtype == value.dtype


def test_the_anchor_changes_nothing_but_rounding():
    gated, arrays, value = make(CASES["mixture of vectors"])

    def at(anchor, shift, dtype):
        density = vbss.MultivariateNormal(
            ("kx", (arrays["loc"][1] + shift).astype(dtype)),
            ("kxy", arrays["precision"][1].astype(dtype)),
            anchor=None if anchor is None else jnp.full(2, anchor, dtype),
        )
        gates = {"nk": gated.gates[0].array.astype(dtype)}
        return np.asarray(log_prob(vbss.Gated("n", gates, density), (value + shift).astype(dtype)))

    expected = at(None, 0.0, jnp.float64)
    for anchor in (3.0, -10.0):
        np.testing.assert_allclose(at(anchor, 0.0, jnp.float64), expected, rtol=1e-10)
    # Far from zero, single precision needs it.
    assert np.abs(at(1024.0, 1024.0, jnp.float32) - expected).max() < 1e-3
    assert np.abs(at(None, 1024.0, jnp.float32) - expected).max() > 2e-2


def with_loading(value, loading):
    precision = pack(positive(complex_normal, rng(1), 2, 2))
    density = vbss.ComplexNormal(
        ("p", precision), ("", -inverse_and_log_determinant(precision)[1]), ("", jnp.array(0.7)), loading=loading
    )
    return vbss.Gated("n", {"nk": jnp.ones((value.shape[-2], 1))}, density)


def test_the_loading_is_the_expectation_over_white_noise():
    value, loading, num = complex_normal(rng(0), 3, 2), jnp.array([0.1, 1.0, 5.0]), 20_000
    power = (np.abs(value) ** 2).sum(-1)
    noise = np.asarray(complex_normal(rng(2), num, 3, 2)) * np.sqrt(np.asarray(loading) * power / 4)[:, None]
    noisy = (np.asarray(value) + noise) / np.sqrt(1 + np.asarray(loading))[:, None]
    samples = np.asarray(log_prob(with_loading(value, None), noisy))
    expected = np.asarray(log_prob(with_loading(value, ("n", loading)), value))
    errors = samples.std(0) / np.sqrt(num)
    assert (np.abs(samples.mean(0) - expected) < 4 * errors).all()
    assert (np.abs(np.asarray(log_prob(with_loading(value, None), value)) - expected) > 10 * errors).any()


def test_no_loading_is_a_loading_of_zero():
    value = complex_normal(rng(0), 3, 2)
    without, with_zero = with_loading(value, None), with_loading(value, ("n", jnp.zeros(3)))
    np.testing.assert_allclose(log_prob(with_zero, value), log_prob(without, value), rtol=1e-12)


@pytest.mark.parametrize("name", ["mixture of scalars", "mixture of vectors", "one plate"])
def test_an_enumerated_gate_gives_the_density_under_each_state(name):
    gated, _, value = make(CASES[name])
    every_state = jnp.eye(3).reshape(3, 1, 3)  # as NumPyro's enumeration hands it on
    enumerated = vbss.Gated("n", {"nk": every_state}, gated.density)
    if enumerated.batch_shape != gated.batch_shape:
        enumerated = vbss.Gated("n", {"nk": jnp.broadcast_to(every_state, (3, 5, 3))}, gated.density)
    found = log_prob(enumerated, value)
    for state in range(3):
        gate = jnp.broadcast_to(jnp.eye(3)[state], (5, 3))
        np.testing.assert_allclose(
            found[state], log_prob(vbss.Gated("n", {"nk": gate}, gated.density), value), rtol=1e-9
        )


def test_an_enumerated_gate_that_lacks_a_plate_is_refused():
    gated, _, value = make(CASES["gates that cross plates"])
    w, z = (gate.array for gate in gated.gates)
    enumerated = vbss.Gated("td", {"tdm": w, "mk": jnp.stack([z, z])}, gated.density)
    with pytest.raises(ValueError, match="gate with axes 'mk' is enumerated but does not carry all plates 'td'"):
        enumerated.log_prob(value)


def mixture(loc="k", precision="k"):
    return vbss.Normal((loc, jnp.zeros(shape_of(loc))), (precision, jnp.ones(shape_of(precision))))


def gates(*axes):
    return {a: jnp.ones(shape_of(a)) for a in axes}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: vbss.Gated("n", {"nk": jnp.ones((5, 4))}, mixture()),
            r"axis 'k' has size 4 .* 3 .*'k' and shape \(3,\)",
        ),
        (
            lambda: vbss.Gated("n", {"nk": jnp.ones((5, 3)), "nj": jnp.ones((6, 2))}, mixture("k", "j")),
            "axis 'n' has size 5 .* 6",
        ),
        (lambda: vbss.Gated("nt", gates("nk"), mixture()), "no gate or parameter gives the size of plate axis 't'"),
        (lambda: vbss.Gated("n", gates("nk"), vbss.Normal(("K", jnp.ones(3)), ("k", jnp.ones(3)))), "letters, got 'K'"),
        (lambda: vbss.Gated("n", {"nkn": jnp.ones((5, 3, 5))}, mixture()), "distinct lower-case letters, got 'nkn'"),
        (lambda: vbss.Gated("nn", gates("nk"), mixture()), "plates.*distinct lower-case letters, got 'nn'"),
        (lambda: vbss.Gated("N", gates("nk"), mixture()), "plates.*distinct lower-case letters, got 'N'"),
        (lambda: vbss.Gated("n", {"nk": jnp.ones(3)}, mixture()), r"'nk' name 2 dimensions, .*\(3,\)"),
        (lambda: vbss.Gated("n", gates("nk"), mixture("kj")), "axis 'j' of .* neither a plate nor in a gate"),
        (lambda: vbss.Gated("n", gates("nkj"), mixture()), "one axis of states .*'nkj'"),
        (lambda: vbss.Gated("n", gates("nk", "k"), mixture()), "one axis of states .*'nk', 'k'"),
        (lambda: vbss.Gated("n", gates("n", "nk"), mixture()), "one axis of states .*'n', 'nk'"),
        (lambda: vbss.Gated("n", gates("mk"), mixture()), "one axis of states .*'mk'"),
    ],
)
def test_axes_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_an_observation_of_another_size_is_refused():
    gated, _, value = make(CASES["mixture of vectors"])
    for bad in (value[:3], value[:, :1], value[0], value[:, None]):
        with pytest.raises(ValueError, match=r"must have shape \(5, 2\)"):
            gated.log_prob(bad)


PRODUCTS = {
    "two matrices": {"nk": (5, 3), "np": (5, 4), "kp": (3, 4)},
    "alternating axes": {"fkt": (3, 2, 9), "kd": (2, 4), "fpt": (3, 5, 9), "fdp": (3, 4, 5), "ft": (3, 9)},
    "sums outside": {"fkp": (3, 2, 5), "fdp": (3, 4, 5)},
    "few against many": {"ka": (2, 7), "bac": (6, 7, 8), "kbc": (2, 6, 8)},
    "sizes of one": {"fk": (1, 2), "fdp": (3, 4, 5), "kd": (2, 4), "kp": (1, 5)},
    "a number": {"": (), "n": (5,)},
    "one alone": {"fdp": (3, 4, 5)},
}


@pytest.mark.parametrize("shapes", PRODUCTS.values(), ids=PRODUCTS)
def test_summed_products_are_those_of_einsum(shapes):
    arrays = [normal(rng(i), *shape) for i, shape in enumerate(shapes.values())]

    def ours(arrays):
        return summed_product([Labelled(axes, array) for axes, array in zip(shapes, arrays, strict=True)])

    def einsum(arrays):
        return jnp.einsum(",".join(shapes) + "->", *arrays)

    found, expected = jax.jit(lambda a: [jax.value_and_grad(f)(a) for f in (ours, einsum)])(arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)


def test_the_largest_factor_enters_products_of_matrices_as_it_lies():
    shapes = {"fkt": (3, 2, 9), "kd": (2, 40), "fpt": (3, 5, 9), "fdp": (3, 40, 5)}

    def product(*arrays):
        return summed_product([Labelled(axes, array) for axes, array in zip(shapes, arrays, strict=True)])

    equations = jax.make_jaxpr(product)(*(jnp.ones(shape) for shape in shapes.values())).eqns
    assert "transpose" not in {equation.primitive.name for equation in equations}
    batches = {
        operand.aval.shape: batch
        for equation in equations
        if equation.primitive.name == "dot_general"
        for operand, batch in zip(equation.invars, equation.params["dimension_numbers"][1], strict=True)
    }
    assert tuple(batches[shapes["fdp"]]) == (0,)
