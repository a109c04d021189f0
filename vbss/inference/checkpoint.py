"""Runs that were stopped and can go on."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from vbss.errors import InputError
from vbss.inference.solution import Solution
from vbss.program import Model
from vbss.storage import load


def read_checkpoint(path: str | Path, model: Model) -> Solution | None:
    """The run that a checkpoint holds, or None where there is none yet.

    Raises:
        InputError: if the file is not a run of this model, with parameters of the same shapes.
    """
    if not Path(path).exists():
        return None
    found = load(path, *_modules(model))
    if not isinstance(found, Solution) or not isinstance(found.model, type(model)):
        raise InputError(f"checkpoint: {path} holds no inference of a {type(model).__name__}")
    own, stored = ([a.shape for a in jax.tree.leaves(m) if eqx.is_array(a)] for m in (model, found.model))
    if own != stored:
        raise InputError(f"checkpoint: {path} holds a {type(model).__name__} with parameters of other shapes")
    return found


def _modules(tree: Any) -> set[type]:
    """The classes of all modules in a model."""
    if not isinstance(tree, eqx.Module):
        return {cls for child in _children(tree) for cls in _modules(child)}
    fields = (getattr(tree, field.name) for field in dataclasses.fields(tree))
    return {type(tree)}.union(*(_modules(child) for child in fields))


def _children(tree: Any) -> Iterable[Any]:
    if isinstance(tree, Mapping):
        return tree.values()
    return tree if isinstance(tree, list | tuple) else ()
