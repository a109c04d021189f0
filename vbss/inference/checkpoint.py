"""Runs that were stopped and can go on."""

from pathlib import Path

import equinox as eqx
import jax

from vbss.errors import InputError
from vbss.inference.solution import Solution
from vbss.program import Model
from vbss.storage import load
from vbss.storage.layout import classes_in


def read_checkpoint(path: str | Path, model: Model) -> Solution | None:
    """The run that a checkpoint holds, or None where there is none yet.

    Raises:
        InputError: if the file is not a run of this model, with parameters of the same shapes.
    """
    if not Path(path).exists():
        return None
    found = load(path, *classes_in(model))
    if not isinstance(found, Solution) or not isinstance(found.model, type(model)):
        raise InputError(f"checkpoint: {path} holds no inference of a {type(model).__name__}")
    own, stored = ([a.shape for a in jax.tree.leaves(m) if eqx.is_array(a)] for m in (model, found.model))
    if own != stored:
        raise InputError(f"checkpoint: {path} holds a {type(model).__name__} with parameters of other shapes")
    return found
