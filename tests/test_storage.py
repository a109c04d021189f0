"""Files of models and results: what comes back is what went in, and nothing else comes out of a file."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Callable
from enum import Enum, Flag
from typing import Annotated, NamedTuple

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import optax
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpyro.distributions import constraints
from numpyro.infer.hmc import HMCState
from programs import lda_cgmm

import vbss
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.models import GaussianMixture


class Scale(Enum):
    small = 1
    large = 2


class Bits(Flag):
    one = 1
    two = 2


class Pair(NamedTuple):
    first: jax.Array
    second: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    name: str
    values: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "name", self.name + "!")


class Level(vbss.Model):
    """y_n ~ N(loc, 1)."""

    loc: Annotated[jax.Array, vbss.Linear()]
    labels: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, loc):
        self.loc = 10 * loc
        self.labels = ("a", "b")

    def __call__(self, y):
        with numpyro.plate("n", y.shape[0]):
            numpyro.sample("y", vbss.Gated("n", {}, vbss.Normal(("", self.loc), ("", jnp.ones(())))), obs=y)


def same(a, b):
    """Whether two trees are equal in types, structure, dtypes, bits and layout."""
    if type(a) is not type(b):
        return False
    if isinstance(a, jax.Array):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jr.key_impl(a) == jr.key_impl(b) and same(jr.key_data(a), jr.key_data(b))
        return a.dtype == b.dtype and same(np.asarray(a), np.asarray(b))
    if isinstance(a, np.ndarray | np.generic):
        layout = (a.dtype, a.shape, a.flags.f_contiguous), (b.dtype, b.shape, b.flags.f_contiguous)
        return layout[0] == layout[1] and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(map(type, a)) == list(map(type, b)) and list(a) == list(b) and same([*a.values()], [*b.values()])
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a is b if isinstance(a, Enum) else repr(a) == repr(b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.vbss"


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


class Cyclic(list):
    pass


def _cycle():
    items = []
    items.append(items)
    return items


class Unset(eqx.Module):
    value: jax.Array

    def __init__(self):
        self.value = jnp.ones(())


def _uninitialised():
    return object.__new__(Unset)


UNSAVABLE: dict[str, tuple[Callable, str]] = {
    "function": (lambda: {"model": [jnp.tanh]}, r"tree\['model'\]\[0\] cannot be saved, it is"),
    "distribution": (lambda: numpyro.distributions.Normal(), "Normal"),
    "object array": (lambda: np.array([None]), "array of object"),
    "masked array": (lambda: np.ma.ones(2), "MaskedArray"),
    "subclass": (lambda: Cyclic(), "Cyclic"),
    "set": (lambda: {1}, "builtins:set"),
    "bytes": (lambda: b"", "builtins:bytes"),
    "class": (lambda: GaussianMixture, "cannot be saved"),
    "combined flags": (lambda: Bits.one | Bits.two, "Bits"),
    "shape": (lambda: jax.ShapeDtypeStruct((), float), "ShapeDtypeStruct"),
    "cycle": (_cycle, "holds itself"),
    "field": (_uninitialised, r"tree\.value has no value"),
}


@pytest.mark.parametrize("name", UNSAVABLE)
def test_what_cannot_be_saved_is_named_and_the_earlier_file_kept(name, path):
    make, message = UNSAVABLE[name]
    vbss.save(path, 1)
    with pytest.raises(InputError, match=message):
        vbss.save(path, make())
    assert vbss.load(path) == 1
    assert os.listdir(path.parent) == [path.name]


def test_traced_arrays_are_refused(path):
    with pytest.raises(InputError, match=r"tree\[0\] is traced"):
        jax.jit(lambda x: vbss.save(path, [x]))(1.0)


def test_the_file_appears_whole_or_not_at_all(path, monkeypatch):
    vbss.save(path, 1)
    written = []

    def refuse(file, array, **options):
        written.extend(os.listdir(path.parent))
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", refuse)
    with pytest.raises(OSError, match="no space"):
        vbss.save(path, jnp.ones(2))
    assert len(written) == 2 and os.listdir(path.parent) == [path.name]
    assert vbss.load(path) == 1


def test_links_stay_and_permissions_are_those_of_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "link").symlink_to("real")
    vbss.save(str(tmp_path / "link"), 1)
    assert (tmp_path / "link").is_symlink() and vbss.load(tmp_path / "real") == 1
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_impossible_paths_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(InputError, match="must name a file in an existing folder"):
            vbss.save(path, 1)
        with pytest.raises(InputError, match="there is no file"):
            vbss.load(path)


# Files that `save` did not write.


def _pack(path, root=None, arrays=(), compression=zipfile.ZIP_STORED, **header):
    """A file with any header and members."""
    full = {"format": "vbss", "format_version": 1, "vbss_version": "0.2.0", "root": root} | header
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", json.dumps(full))
        for index, array in enumerate(arrays):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, allow_pickle=True)
            archive.writestr(f"{index}.npy", file.getvalue())


def _object(cls, **fields):
    return {"type": "object", "class": cls, "fields": fields}


def _jax(member=0, dtype="float64"):
    return {"type": "jax", "member": member, "dtype": dtype}


_ONES = (np.ones(2),)
_CONSTRAINTS = "numpyro.distributions.constraints"
_LINEAR = _object("vbss.kinds:Linear", event_rank=0)

HOSTILE: dict[str, tuple[dict, str]] = {
    "newer format": ({"format_version": 2, "vbss_version": "9.1"}, "version 2 .* install vbss 9.1"),
    "other format": ({"format": "keras"}, "not one that vbss.save wrote"),
    "no version": ({"format_version": None}, "not one that vbss.save wrote"),
    "unknown entry": ({"root": {"type": "pickle", "data": "gASV"}}, "has the entry .*pickle"),
    "pickled array": ({"root": _jax(), "arrays": (np.array([print]),)}, "damaged, .*0.npy"),
    "compressed": ({"root": _jax(), "arrays": _ONES, "compression": zipfile.ZIP_DEFLATED}, "is compressed"),
    "missing member": ({"root": [1]}, "has the entry"),
    "member not there": ({"root": _jax(1), "arrays": _ONES}, "lacks its member '1.npy'"),
    "member twice": (
        {"root": {"type": "list", "items": [_jax() | {"type": "numpy"}] * 2}, "arrays": _ONES},
        "lacks its member '0.npy'",
    ),
    "member unused": ({"arrays": _ONES}, "nothing refers to its member '0.npy'"),
    "another dtype": ({"root": _jax(dtype="float32"), "arrays": _ONES}, "float64 in place of float32"),
    "object dtype": ({"root": _jax(dtype="object"), "arrays": _ONES}, "float64 in place of object"),
    "text for JAX": ({"root": _jax(dtype="str32"), "arrays": (np.array(["a"]),)}, "damaged"),
    "no scalar": ({"root": _jax() | {"type": "scalar"}, "arrays": _ONES}, "not a scalar"),
    "no key": (
        {"root": {"type": "key", "member": 0, "implementation": "x"}, "arrays": (np.ones(2, "u4"),)},
        "damaged, .*0.npy",
    ),
    "array as key": ({"root": {"type": "dict", "items": [[_jax(), 1]]}, "arrays": _ONES}, "damaged, .*unhashable"),
    "key twice": ({"root": {"type": "dict", "items": [[1, 1], [1, 2]]}}, "with '1' twice"),
    "no pair": ({"root": {"type": "dict", "items": [[1]]}}, "a dictionary with the entry"),
    "no number": ({"root": {"type": "complex", "parts": [1, "a"]}}, "for a number"),
    "infinity": ({"root": float("inf")}, "has the entry inf"),
    "foreign class": ({"root": _object("os:path")}, r"holds a path of os: hand the class over"),
    "foreign module": ({"root": _object("antigravity:Anything")}, "holds a Anything of antigravity: hand"),
    "imported name": ({"root": _object("vbss.models.gmm:Model")}, "does not have"),
    "function": ({"root": _object("vbss.inference.fit:fit")}, "does not have"),
    "error class": ({"root": _object("vbss.errors:InputError")}, "does not have"),
    "abstract class": ({"root": _object("vbss.program:Model")}, "does not have"),
    "another sort": ({"root": _LINEAR | {"type": "namedtuple"}}, "does not have"),
    "command line": ({"root": _object("vbss.__main__:console")}, "does not have"),
    "optax function": ({"root": {"type": "namedtuple", "class": "optax:adam", "fields": {}}}, "hand the class over"),
    "numpyro class": ({"root": _object("numpyro.infer.mcmc:MCMC")}, "hand the class over"),
    "user's class": ({"root": _object("mine:Level", loc=1, labels=2)}, r"vbss.load\(path, Level\)"),
    "extra field": ({"root": _object("vbss.kinds:Linear", event_rank=0, __class__=1)}, "the class now has"),
    "missing field": ({"root": _object("vbss.kinds:Linear")}, r"fields \[\], but the class now has \['event_rank'\]"),
    "shared constraint": (
        {"root": _object(f"{_CONSTRAINTS}:_Positive", lower_bound=-1) | {"type": "constraint"}},
        r"_Positive of \['lower_bound'\]",
    ),
    "odd constraint": (
        {"root": _object(f"{_CONSTRAINTS}:_Interval", lower_bound=0) | {"type": "constraint"}},
        "damaged, .*no attribute 'upper_bound'",
    ),
    "abstract constraint": ({"root": _object(f"{_CONSTRAINTS}:Constraint") | {"type": "constraint"}}, "damaged"),
    "enum": (
        {"root": {"type": "enum", "class": "vbss.inference.solution:Status", "name": "__class__"}},
        "holds '__class__' of .*, which now has",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, path):
    contents, message = HOSTILE[name]
    _pack(path, **contents)
    with pytest.raises(InputError, match=message):
        vbss.load(path)
    assert constraints.positive.lower_bound == 0


def test_the_control_of_the_hostile_files_is_accepted(path):
    _pack(path, {"type": "list", "items": [_LINEAR, _jax()]}, _ONES)
    assert same(vbss.load(path), [vbss.Linear(0), jnp.ones(2)])


def test_nothing_that_a_file_names_is_imported(path, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    _pack(path, _object("trap:Trap"))
    with pytest.raises(InputError, match="Trap of trap"):
        vbss.load(path)


def test_the_wrong_class_is_named(path):
    vbss.save(path, Level(jnp.ones(())))
    with pytest.raises(InputError, match=r"holds a Level of .*, which is not among Record: .*load\(path, Level\)"):
        vbss.load(path, Record)
    with pytest.raises(InputError, match="classes must be"):
        vbss.load(path, int)


def test_a_class_with_other_fields_is_refused(path):
    vbss.save(path, Record("a", np.ones(2)))
    renamed = dataclasses.make_dataclass("Record", ["name", "value"])
    with pytest.raises(InputError, match=r"fields \['name', 'values'\], but the class now has \['name', 'value'\]"):
        vbss.load(path, renamed)


def test_truncated_files_are_refused(path):
    vbss.save(path, [jnp.arange(5.0), vbss.Linear()])
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a file of vbss.save, or not all of it"):
            vbss.load(path)


def test_flipped_bits_are_noticed(path):
    array = jnp.arange(64.0)
    vbss.save(path, array)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            assert same(vbss.load(path), array)  # what the archive says of itself may be wrong, never the values
        except InputError:
            noticed += 1
    assert noticed > 75


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)} + [",
        "__import__('os').system('true')",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_headers_of_arrays_are_not_believed(header, path):
    text = header.ljust(117).encode() + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "header.json", json.dumps({"format": "vbss", "format_version": 1, "vbss_version": "", "root": _jax()})
        )
        archive.writestr("0.npy", array)
    with pytest.raises(InputError, match="damaged, its member '0.npy'"):
        vbss.load(path)


def test_other_archives_are_refused(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))
    with pytest.raises(InputError, match="zip archive, but not one that vbss.save wrote"):
        vbss.load(path)
    for text in ("[1, ", '{"a": ' * 100_000, "\udcff"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", text.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError, match="damaged, its member 'header.json'|nested too deeply"):
            vbss.load(path)
    path.write_text("not a zip archive at all")
    with pytest.raises(InputError, match="not a file of vbss.save"):
        vbss.load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_refused(path):
    _pack(path, _jax(), _ONES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("0.npy", b"")
    with pytest.raises(InputError, match="two of its members have one name"):
        vbss.load(path)
