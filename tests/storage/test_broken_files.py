"""Files that `save` did not write, or not so: nothing but trees of known classes comes out of a file."""

import dataclasses
import io
import json
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints
from stored_trees import Level, Record, same

import vbss
from vbss.errors import InputError


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
