"""What comes back from a file is what went in."""

import zipfile
from enum import Enum
from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpyro.distributions import constraints
from numpyro.infer.hmc import HMCState
from programs import lda_cgmm
from stored_trees import Level, Record, same

import vbss
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.models import GaussianMixture


class Scale(Enum):
    small = 1
    large = 2


class Pair(NamedTuple):
    first: jax.Array
    second: object = None


@pytest.fixture
def round_trip(path):
    def through(tree, *classes):
        vbss.save(path, tree)
        return vbss.load(path, *classes)

    return through


TREES = {
    "jax": [jnp.arange(6.0).reshape(2, 3), jnp.array(1 + 2j), jnp.array([True, False]), jnp.zeros((0, 2), jnp.int8)],
    "half": {"b": jnp.array([1.5, -2], jnp.bfloat16), "i": jnp.arange(-3, 3, dtype=jnp.int4), "h": jnp.ones((), "f2")},
    "keys": (jr.key(0), jr.split(jr.key(1, impl="rbg"), 3), jr.key(2, impl="unsafe_rbg")),
    "numpy": [np.asfortranarray(np.eye(3)), np.array(["ab", "c"]), np.array(3 + 1j), np.arange(3, dtype=">i2")],
    "records": np.array([(1, 2.5)], [("n", "i4"), ("x", "f8")]),
    "scalars": [np.float32(0.1), np.bool_(True), np.str_("a"), np.datetime64("2020-01-01"), np.complex64(1j)],
    "numbers": [0, -(2**80), 1.0, 0.1, -0.0, float("nan"), float("-inf"), complex(1, float("inf")), True, None],
    "text": {"": "é\n\0\ud800", "tuple": ((),), "list": [[]], "dict": {}},
    "keyed": {1: "int", None: "none", (1, "a"): "tuple", vbss.Linear(1): "kind", Scale.small: "enum", 2.5: "float"},
}


@pytest.mark.parametrize("name", TREES)
def test_trees_come_back(name, round_trip):
    assert same(round_trip(TREES[name], Scale), TREES[name])


_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    hnp.arrays(st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes()), hnp.array_shapes(min_dims=0, max_side=3)),
)
_dictionary_keys = st.one_of(st.text(), st.integers(), st.tuples(st.text(), st.integers()))


def _containers(children):
    return st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(_dictionary_keys, children, max_size=3),
        st.builds(Pair, children, children),
        st.builds(Record, st.text(), children),
    )


@settings(max_examples=40)
@given(st.recursive(_leaves, _containers, max_leaves=12))
def test_random_trees_come_back(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("trees") / "tree"
    vbss.save(path, tree)
    assert same(vbss.load(path, Pair, Record), tree)


def test_optimiser_and_sampler_states_come_back(round_trip):
    with relaxed_promotion():
        state = optax.chain(optax.clip(1.0), optax.adam(1e-2)).init({"w": jnp.ones(2)})
    sampler = HMCState(*({"z": jnp.full(2, float(i))} for i in range(len(HMCState._fields) - 1)), rng_key=jr.key(0))
    assert same(round_trip((state, sampler)), (state, sampler))


@pytest.mark.parametrize(
    "constraint",
    [
        constraints.positive,
        constraints.interval(0.0, 1.0),
        constraints.independent(constraints.greater_than(1.0), 1),
        vbss.distributions.constraints.log_weights,
    ],
    ids=repr,
)
def test_constraints_come_back(constraint, round_trip):
    loaded = round_trip(constraint)
    assert type(loaded) is type(constraint) and loaded == constraint
    value = jnp.array([0.5, 3.0])
    np.testing.assert_array_equal(loaded(value), constraint(value))


def test_objects_are_made_without_their_constructors(round_trip):
    model, record = Level(jnp.ones(())), Record("a", np.ones(2))
    assert same(round_trip([model, record], Level, Record), [model, record])
    assert round_trip(model, Level).loc == 10


def test_a_class_that_moved_is_found_by_its_name(round_trip, monkeypatch):
    model = Level(jnp.ones(()))
    monkeypatch.setattr(Level, "__module__", "__main__")
    vbss_file = round_trip(model, Level)
    assert same(vbss_file, model)
    monkeypatch.undo()
    assert same(round_trip(model, Level), model)


def test_a_solution_goes_on_as_if_it_had_not_been_stored(round_trip):
    data = jr.normal(jr.key(0), (30, 2))
    model = GaussianMixture.init(data, 2, key=jr.key(1))
    solution = vbss.fit(model, data, vbss.EM(tolerance=0.0), max_steps=2)
    loaded = round_trip(solution)
    assert same(loaded, solution)
    assert jax.tree.structure(loaded) == jax.tree.structure(solution)
    ends = [vbss.fit(model, data, vbss.EM(tolerance=0.0), start=s, max_steps=1) for s in (solution, loaded)]
    np.testing.assert_array_equal(ends[0].elbo, ends[1].elbo)


def test_a_solution_of_several_kinds_of_factors_comes_back(round_trip):
    with relaxed_promotion():
        model, data = lda_cgmm(jr.key(0))
    solution = vbss.fit(model, data, max_steps=2)
    assert same(round_trip(solution), solution)
    assert same(round_trip(solution.posterior), solution.posterior)


def test_single_precision_needs_no_double(round_trip):
    with jax.enable_x64(False):
        tree = [jnp.ones(2), np.ones(2)]  # numpy's own are what they are
        assert same(round_trip(tree), tree)


@pytest.mark.parametrize("array", [jnp.ones(2), jnp.ones(2, complex), jnp.arange(2)], ids=lambda a: a.dtype.name)
def test_double_precision_is_not_rounded_in_silence(array, path):
    vbss.save(path, array)
    with jax.enable_x64(False), pytest.raises(InputError, match=f"{array.dtype}.*jax_enable_x64"):
        vbss.load(path)


def test_numpy_opens_a_file(path):
    vbss.save(path, {"a": jnp.arange(3.0), "b": np.eye(2)})
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["0"], np.arange(3.0))
        np.testing.assert_array_equal(arrays["1"], np.eye(2))


def test_an_array_in_several_places_is_stored_once(path):
    array = jnp.ones(3)
    vbss.save(path, {"a": array, "b": [array], "c": jnp.ones(3)})
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["header.json", "0.npy", "1.npy"]
    loaded = vbss.load(path)
    assert loaded["a"] is loaded["b"][0] and same(loaded["a"], array)


def test_equal_trees_make_equal_files(tmp_path):
    for name in "ab":
        vbss.save(tmp_path / name, TREES["jax"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
