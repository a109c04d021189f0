"""From a file to the tree that it describes, trusting nothing in it."""

import inspect
import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vbss import __version__
from vbss.errors import InputError
from vbss.storage.layout import (
    FORMAT,
    FORMAT_VERSION,
    HEADER,
    constraint_fields,
    field_names,
    is_extended,
    known_class,
    plain_type,
    sort_of,
)

# What libraries raise on values that make no sense.
_SENSELESS = (
    ValueError,
    TypeError,
    SyntaxError,
    TokenError,
    KeyError,
    AttributeError,
    NotImplementedError,
    EOFError,
    MemoryError,
)


def load(path: str | Path, *classes: type) -> Any:
    """What `save` wrote: the same types, values and dtypes. JAX arrays stand on the default device.

    Args:
        path: the file.
        classes: the classes in it that are not of vbss: your own models, `vbss.load(path, MyModel)`. One that has moved
            to another module is found by its name.

    Raises:
        InputError: if there is no such file, it was not written by `save`, it is damaged, a newer vbss wrote it, it
            needs a class that is not given, a class has other fields than when it was saved, or it holds arrays of
            double precision and JAX is not set to that.
    """
    path = Path(path)
    for cls in classes:
        if not isinstance(cls, type) or sort_of(cls) is None:
            raise InputError(f"classes must be Equinox modules, dataclasses, NamedTuples or Enums, got {cls!r}.")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}.")
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _Reader(str(path), archive, classes).read()
        # In a damaged archive, zipfile seeks impossible places and reads impossible names.
        except (zipfile.BadZipFile, NotImplementedError, OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{str(path)!r} is not a file of vbss.save, or not all of it is there ({error})."
            ) from error
        except RecursionError as error:
            raise InputError(f"{str(path)!r} is nested too deeply to be a file of vbss.save.") from error


class _Reader:
    """An open archive, and the classes that may come out of it."""

    def __init__(self, path: str, archive: zipfile.ZipFile, classes: tuple[type, ...]):
        self._path, self._archive, self._classes = path, archive, classes
        self._unread = {info.filename: info for info in archive.infolist()}
        self._writer = "another version of vbss"
        self._shared: dict[int, jax.Array] = {}  # by member: immutable, and perhaps in several places

    def read(self) -> Any:
        if len(self._unread) < len(self._archive.infolist()):
            raise self._damaged("two of its members have one name")
        match self._header():
            case {"format": name, "format_version": int(version), "vbss_version": str(writer), "root": root}:
                self._writer = f"vbss {writer}"
            case _:
                name, version, root = None, 0, None
        if name != FORMAT:
            raise InputError(f"{self._path!r} is a zip archive, but not one that vbss.save wrote.")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self._path!r} has version {version} of the format, but vbss {__version__} reads version "
                f"{FORMAT_VERSION}: install {self._writer}, which wrote it, or a newer one."
            )
        tree = self._restored(root)
        if self._unread:
            raise self._damaged(f"nothing refers to its member {sorted(self._unread)[0]!r}")
        return tree

    def _header(self) -> Any:
        if HEADER not in self._unread:
            return None
        member = self._member(HEADER)
        with self._reading(HEADER):
            return json.loads(self._archive.read(member))

    def _restored(self, node: Any) -> Any:
        match node:
            case None | bool() | int() | str():
                return node
            case float() if math.isfinite(node):
                return node
            case {"type": "float", "value": "inf" | "-inf" | "nan" as value}:
                return float(value)
            case {"type": "complex", "parts": [real, imaginary]}:
                return complex(self._float(real), self._float(imaginary))
            case {"type": "list", "items": list(items)}:
                return [self._restored(item) for item in items]
            case {"type": "tuple", "items": list(items)}:
                return tuple(self._restored(item) for item in items)
            case {"type": "dict", "items": list(items)}:
                return self._dictionary(items)
            case {"type": "enum", "class": str(cls), "name": str(name)}:
                return self._enum(cls, name)
            case {"type": "namedtuple" | "object" as sort, "class": str(cls), "fields": dict(fields)}:
                return self._object(sort, cls, fields)
            case {"type": "constraint", "class": str(cls), "fields": dict(fields)}:
                return self._constraint(cls, fields)
            case {"type": "numpy", "member": int(index), "dtype": str(dtype)}:
                return self._array(index, dtype)
            case {"type": "scalar", "member": int(index), "dtype": str(dtype)}:
                array = self._array(index, dtype)
                if array.ndim > 0:
                    raise self._damaged(f"its member '{index}.npy' is not a scalar")
                return array[()]
            case {"type": "jax", "member": int(index), "dtype": str(dtype)}:
                if index not in self._shared:
                    self._shared[index] = self._jax_array(index, dtype)
                return self._shared[index]
            case {"type": "key", "member": int(index), "implementation": str(implementation)}:
                data = self._jax_array(index, "uint32")
                with self._reading(f"{index}.npy"):
                    return jax.random.wrap_key_data(data, impl=implementation)
        raise self._damaged(f"its {HEADER} has the entry {str(node)[:80]}")

    def _float(self, node: Any) -> float:
        value = self._restored(node)
        if not isinstance(value, float):
            raise self._damaged(f"its {HEADER} has {str(node)[:80]} for a number")
        return value

    def _dictionary(self, items: list[Any]) -> dict[Any, Any]:
        dictionary = {}
        for item in items:
            match item:
                case [key, value]:
                    key = self._restored(key)
                case _:
                    raise self._damaged(f"its {HEADER} has a dictionary with the entry {str(item)[:80]}")
            with self._reading(HEADER):
                known = key in dictionary
            if known:
                raise self._damaged(f"its {HEADER} has a dictionary with {str(key)[:80]!r} twice")
            dictionary[key] = self._restored(value)
        return dictionary

    def _enum(self, name: str, value: str) -> Any:
        cls = self._class(name, "enum")
        if value not in cls.__members__:
            raise InputError(f"{self._path!r} holds {value!r} of {name}, which now has {list(cls.__members__)}.")
        return cls.__members__[value]

    def _object(self, sort: str, name: str, fields: dict[str, Any]) -> Any:
        cls = self._class(name, sort)
        own = field_names(cls)
        if set(fields) != set(own):
            raise InputError(
                f"{self._path!r} holds a {name} with the fields {sorted(fields)}, but the class now has {sorted(own)}: "
                f"load it with the class as it was when {self._writer} wrote the file."
            )
        if sort == "namedtuple":
            return tuple.__new__(cls, [self._restored(fields[field]) for field in own])
        value = object.__new__(cls)
        for field in own:
            object.__setattr__(value, field, self._restored(fields[field]))
        return value

    def _constraint(self, name: str, fields: dict[str, Any]) -> Any:
        cls = self._class(name, "constraint")
        value = cls.__new__(cls)
        # Most have one instance, which is everyone's and must not be changed.
        is_shared = value is cls.__new__(cls)
        if not is_shared:
            for field, node in fields.items():
                value.__dict__[field] = self._restored(node)
        with self._reading(HEADER):
            own = constraint_fields(value)
        if set(own) != set(fields):
            raise self._damaged(f"its {HEADER} has a {name} of {sorted(fields)}")
        return value

    def _class(self, name: str, sort: str) -> Any:
        cls = known_class(name, self._classes)
        if cls is not None and sort_of(cls) == sort and not inspect.isabstract(cls):
            return cls
        module, _, qualname = name.partition(":")
        if module.partition(".")[0] == "vbss":
            raise InputError(
                f"{self._path!r} holds a {qualname} of {module}, which vbss {__version__} does not have: "
                f"{self._writer} wrote the file."
            )
        given = f", which is not among {', '.join(cls.__qualname__ for cls in self._classes)}" if self._classes else ""
        raise InputError(
            f"{self._path!r} holds a {qualname} of {module}{given}: hand the class over, as in "
            f"vbss.load(path, {qualname.rpartition('.')[2]})."
        )

    def _member(self, name: str) -> zipfile.ZipInfo:
        """A member that was not read before, and that takes no more memory than it takes room in the file."""
        if name not in self._unread:
            raise self._damaged(f"it lacks its member {name!r}")
        info = self._unread.pop(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise self._damaged(f"its member {name!r} is compressed or encrypted")
        return info

    def _array(self, index: int, dtype: str) -> np.ndarray:
        name = f"{index}.npy"
        member = self._member(name)
        with self._reading(name), self._archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("there is more than one array in it")
            if array.dtype.name != dtype:
                extended = np.dtype(dtype)
                if not is_extended(extended) or array.dtype != plain_type(extended):
                    raise ValueError(f"it holds {array.dtype} in place of {dtype}")
                array = array.view(extended)
        return array

    def _jax_array(self, index: int, dtype: str) -> jax.Array:
        array = self._array(index, dtype)
        with self._reading(f"{index}.npy"):
            held = jax.dtypes.canonicalize_dtype(array.dtype)
            if held == array.dtype:
                return jnp.asarray(array)
        raise InputError(
            f"{self._path!r} holds arrays of {dtype}, but JAX is set to {held}: call "
            'jax.config.update("jax_enable_x64", True) first, or load it inside `with jax.enable_x64(True):`.'
        )

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turns what libraries raise on reading a member that makes no sense into our error."""
        try:
            yield
        # Numpy's reader evaluates a header as a Python literal, and makes room for the shape that it claims.
        except _SENSELESS as error:
            raise self._damaged(f"its member {name!r} makes no sense ({error})") from error

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self._path!r} is damaged, {reason}: save it again.")
