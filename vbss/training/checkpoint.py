"""Trainings that were stopped and can go on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from filelock import FileLock, Timeout
from jax.experimental import multihost_utils

from vbss.errors import InputError
from vbss.inference.loop import fingerprint
from vbss.inference.solution import Status
from vbss.storage import load, save
from vbss.storage.layout import classes_in
from vbss.training.settings import TrainingSettings
from vbss.training.state import Training, changed, placed

CHECKPOINT, LOCK, _METRICS = "checkpoint.vbss", ".training.lock", "metrics.jsonl"


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; what a killed training left half written in it is taken away.

    Raises:
        InputError: if somebody does, or it cannot be made.
    """
    if folder is None or jax.process_index() != 0:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"folder: {str(folder)!r} is a file") from error
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"folder: {str(folder)!r} is in use by another training") from error
    try:
        for unfinished in folder.glob(f".{CHECKPOINT}.*.new"):
            unfinished.unlink()
        yield
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def save_training(path: Path, state: Training) -> None:
    """The state, of which what was stopped may go on, and the history anew, so that both tell the same.

    Of several processes that train together the first one writes: none can take a step before all have read.
    """
    if jax.process_index() != 0:
        return
    is_stopped = state.status in (Status.interrupted, Status.max_steps)
    save(path, changed(state, status=Status.running) if is_stopped else state)
    unfinished = path.with_name(_METRICS + ".part")
    unfinished.write_text("".join(json.dumps(entry) + "\n" for entry in state.history))
    unfinished.replace(path.with_name(_METRICS))


def opened(path: Path, start: Training, settings: TrainingSettings) -> Training:
    """The training that the folder holds, or one that begins, which is saved: what cannot be is known at once."""
    is_there = path.exists()
    if jax.process_count() > 1:  # the first process decides; another may look when it has already written
        is_there = bool(multihost_utils.broadcast_one_to_all(np.asarray(is_there)))
        if is_there and not path.exists():
            raise InputError(f"folder: {path} must be where all processes see it")
    if not is_there:
        save_training(path, start)
        return start
    found = load(path, *classes_in(start))
    if not isinstance(found, Training) or _identity(found) != _identity(start):
        raise InputError(f"folder: {path} holds no training of this model and network")
    if found.order != start.order:
        told = "batch_size, seed and number of items"
        raise InputError(f"folder: {path} holds a training with the {told} {found.order}, not {start.order}")
    if found.data != start.data:
        raise InputError(f"folder: {path} holds a training with other data, or that began with other networks")
    if found.status is Status.converged and found.waited < settings.stop_after:
        found = changed(found, status=Status.running)
    return changed(found, latest=_where(found.latest, start.latest), optimizer=_where(found.optimizer, start.optimizer))


def _identity(training: Training) -> Any:
    """What training does not move: settings, the layout of all arrays, and the values of the model's fixed ones."""
    learnt = training.latest.parameters
    fixed = [
        jax.tree.leaves(eqx.filter(getattr(training.model, field), eqx.is_array))
        for field in type(training.model).__dataclass_fields__
        if field not in learnt
    ]
    moving = jax.tree.leaves(eqx.filter(training.latest, eqx.is_array))
    layout = [(leaf.shape, str(leaf.dtype)) for leaf in moving]
    structure = jax.tree.structure((training.model, training.latest))
    return structure, layout, [fingerprint((leaf,)) for leaves in fixed for leaf in leaves]


def _where(found: Any, start: Any) -> Any:
    """What was found, on the devices of what was start."""
    return jax.tree.map(lambda a, b: placed(a, b.sharding) if eqx.is_array(b) else a, found, start)
