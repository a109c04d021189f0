"""From a tree of modules and arrays to a file."""

import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vbss import __version__
from vbss.errors import InputError
from vbss.storage.layout import (
    FORMAT,
    FORMAT_VERSION,
    HEADER,
    class_name,
    constraint_fields,
    field_names,
    is_extended,
    plain_type,
    sort_of,
)

_STORED_KINDS = "biufcmMSUV"  # of numpy's types, those without Python objects


def save(path: str | Path, tree: Any) -> None:
    """Write a model, a posterior, a `Solution` or any tree of such to one file, complete or not at all.

    Args:
        path: the file, in an existing folder; one that is there is replaced. Any extension will do.
        tree: Equinox modules and other dataclasses with all their fields, NamedTuples, dictionaries, tuples and lists,
            of JAX arrays and random keys, numpy arrays, numbers, strings, Enums, NumPyro's constraints and None.

    Raises:
        InputError: if the tree holds anything else (functions, distributions, traced arrays), or `path` cannot be a
            file. `OSError` if the file system refuses.
    """
    path = Path(path).resolve()
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{str(path)!r} must name a file in an existing folder.")
    writer = _Writer()
    try:
        root = writer.described(tree, "tree")
    except RecursionError as error:
        raise InputError("tree holds itself, or is nested too deeply to be saved.") from error
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "vbss_version": __version__, "root": root}
    text = json.dumps(header, allow_nan=False)
    # A plain name, not tempfile's: the file keeps the permissions that a newly written file has here.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(zipfile.ZipInfo(HEADER), text)
                for index, array in enumerate(writer.arrays):
                    with archive.open(zipfile.ZipInfo(f"{index}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, _plain(np.asarray(array)), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Writer:
    """Describes a tree in JSON's terms, and collects its arrays in `arrays`."""

    def __init__(self):
        self.arrays: list[Any] = []
        self._shared: dict[int, int] = {}

    def described(self, value: Any, where: str) -> Any:
        if isinstance(value, Tracer):
            raise InputError(f"{where} is traced: save must be called outside of jit, vmap, grad and scan.")
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(value, where)
        cls = type(value)
        if value is None or cls in (bool, int, str):
            return value
        if cls is float:
            return value if math.isfinite(value) else {"type": "float", "value": repr(value)}
        if cls is complex:
            return {"type": "complex", "parts": self._items((value.real, value.imag), where)}
        if cls in (list, tuple):
            return {"type": cls.__name__, "items": self._items(value, where)}
        if cls is dict:
            items = [
                [self.described(key, f"key {key!r} of {where}"), self.described(item, f"{where}[{key!r}]")]
                for key, item in value.items()
            ]
            return {"type": "dict", "items": items}
        sort = sort_of(cls)
        if sort == "enum" and value.name in cls.__members__:
            return {"type": sort, "class": class_name(cls), "name": value.name}
        if sort == "constraint":
            fields = {name: self.described(part, f"{where}.{name}") for name, part in constraint_fields(value).items()}
            return {"type": sort, "class": class_name(cls), "fields": fields}
        if sort in ("namedtuple", "object"):
            return {"type": sort, "class": class_name(cls), "fields": self._fields(value, where)}
        raise _cannot_be_saved(where, class_name(cls))

    def _array(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            implementation = str(jax.random.key_impl(value))
            return {"type": "key", "member": self._member(jax.random.key_data(value)), "implementation": implementation}
        if isinstance(value, jax.Array):
            # Immutable, and often in several places: a solution's posterior is part of its algorithm's state.
            if id(value) not in self._shared:
                self._shared[id(value)] = self._member(value)
            return {"type": "jax", "member": self._shared[id(value)], "dtype": value.dtype.name}
        if isinstance(value, np.generic):
            sort = "scalar"
        elif type(value) is np.ndarray:
            sort = "numpy"
        else:
            raise _cannot_be_saved(where, class_name(type(value)))
        if value.dtype.kind not in _STORED_KINDS or value.dtype.hasobject:
            raise _cannot_be_saved(where, f"an array of {value.dtype}")
        return {"type": sort, "member": self._member(value), "dtype": value.dtype.name}

    def _member(self, array: Any) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _items(self, values: Iterable[Any], where: str) -> list[Any]:
        return [self.described(item, f"{where}[{index}]") for index, item in enumerate(values)]

    def _fields(self, value: Any, where: str) -> dict[str, Any]:
        described = {}
        for name in field_names(type(value)):
            if not hasattr(value, name):
                raise InputError(f"{where}.{name} has no value: this {type(value).__name__} was never initialised.")
            described[name] = self.described(getattr(value, name), f"{where}.{name}")
        return described


def _plain(array: np.ndarray) -> np.ndarray:
    """The same bytes under a type that numpy's files know."""
    return array.view(plain_type(array.dtype)) if is_extended(array.dtype) else array


def _cannot_be_saved(where: str, what: str) -> InputError:
    return InputError(
        f"{where} cannot be saved, it is {what}: a file holds modules, dataclasses, NamedTuples, dictionaries, tuples, "
        "lists, arrays, random keys, numbers, strings, Enums and None."
    )
