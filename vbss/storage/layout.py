"""What both sides of a file agree on: names of members, of classes and of types."""

import dataclasses
import sys
from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
from numpyro.distributions.constraints import Constraint

FORMAT, FORMAT_VERSION = "vbss", 1
HEADER = "header.json"

# The packages whose classes a file may name, and what is imported to know them. Only vbss's own may be any class; of
# the others only NamedTuples, the states of optimisers and samplers, and the constraints of kinds.
_PACKAGES = {
    "vbss": (
        "vbss.models",
        "vbss.inference",
        "vbss.separation",
        "vbss.binaural",
        "vbss.networks",
        "vbss.neural",
        "vbss.enhancement",
        "vbss.training",
    ),
    "optax": ("optax",),
    "numpyro": ("numpyro.infer",),
}


def class_name(cls: type) -> str:
    """The name of a class in a file: its module and its place there."""
    return f"{cls.__module__}:{cls.__qualname__}"


def sort_of(cls: type) -> str | None:
    """How objects of a class are stored: "enum", "namedtuple", "constraint" or "object" (a dataclass); or None."""
    if issubclass(cls, Enum):
        return "enum"
    if issubclass(cls, tuple):
        return "namedtuple" if hasattr(cls, "_fields") else None
    if issubclass(cls, Constraint):
        return "constraint"
    return "object" if dataclasses.is_dataclass(cls) else None


def field_names(cls: Any) -> tuple[str, ...]:
    """The names of what an object of a dataclass or NamedTuple consists of."""
    return cls._fields if sort_of(cls) == "namedtuple" else tuple(field.name for field in dataclasses.fields(cls))


def constraint_fields(constraint: Constraint) -> dict[str, Any]:
    """What a NumPyro constraint consists of: its bounds or parts, nothing for most."""
    values, (names, others) = constraint.tree_flatten()
    return dict(zip(names, values, strict=True)) | others


def known_class(name: str, given: Iterable[type]) -> type | None:
    """The class of that name: one of those given, or of the packages that are trusted.

    Nothing is imported but what stands in this file. One of those given may have moved to another module.
    """
    for cls in given:
        if class_name(cls) == name:
            return cls
    module, _, qualname = name.partition(":")
    package = module.partition(".")[0]
    if package in _PACKAGES:
        for part in _PACKAGES[package]:
            import_module(part)
        cls = getattr(sys.modules.get(module), "__dict__", {}).get(qualname)
        # What a module has only imported is not its own.
        if isinstance(cls, type) and class_name(cls) == name:
            if package == "vbss" or sort_of(cls) in ("namedtuple", "constraint"):
                return cls
    same = [cls for cls in given if cls.__qualname__ == qualname]
    return same[0] if len(same) == 1 else None


def is_extended(dtype: np.dtype) -> bool:
    """Whether the type is one that numpy's files do not know, as bfloat16."""
    return dtype.isbuiltin == 2


def plain_type(dtype: np.dtype) -> np.dtype:
    """The type under which an extended type's bytes are stored."""
    return np.dtype(f"u{dtype.itemsize}")


def classes_in(tree: Any) -> set[type]:
    """The classes of the modules in a tree, which `load` may have to be told of."""
    if isinstance(tree, dict):
        return set().union(*(classes_in(item) for item in tree.values()))
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        return set().union(*(classes_in(item) for item in tree))
    if sort_of(type(tree)) is None:
        return set()
    fields = (getattr(tree, name) for name in field_names(type(tree))) if sort_of(type(tree)) != "enum" else ()
    return {type(tree)}.union(*(classes_in(field) for field in fields))
