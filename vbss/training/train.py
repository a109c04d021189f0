"""The loop that trains networks: gradient ascent on the bound over a corpus, which can be stopped and goes on."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.inference.algorithm import names_of
from vbss.inference.amortised import Amortised
from vbss.inference.solution import Status
from vbss.program import Model
from vbss.training.batches import (
    Batch,
    Corpus,
    TrainingDataWarning,
    batches,
    fingerprint_of,
    is_whole,
    item_of,
    layout_of,
    num_batches,
)
from vbss.training.checkpoint import CHECKPOINT, held, opened, save_training
from vbss.training.settings import TrainingSettings, settings_or
from vbss.training.state import Learnt, Training, begun, changed, optimizer_of, placed

Progress = Callable[[int, int, float], Any]
_SECONDS_BETWEEN_CHECKPOINTS = 60.0


def train(
    model: Model,
    amortised: Amortised,
    corpus: Corpus,
    validation: Corpus,
    settings: TrainingSettings | None = None,
    *,
    frozen: Iterable[str] = (),
    origin: str = "",
    folder: str | Path | None = None,
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train the network of an amortised posterior, and the parameters of its model, to raise the bound of a corpus.

    Args:
        corpus: items that are the arguments of the model's program, all of the same shapes.
        validation: another such, by whose bound the learning rate falls and training ends.
        settings: by default `TrainingSettings()`.
        frozen: parameters and networks of the model that stay as they are.
        origin: a text of what else training depends on, such as a hash of the networks that it begins with where they
            come from elsewhere: no training goes on that had another.
        folder: holds `checkpoint.vbss`, written every minute and after each epoch, and `metrics.jsonl`, a line for each
            epoch. If there is a checkpoint, training goes on from it, through the same states as if it had not stopped.
        devices: over which batches are divided, such as `jax.devices()`; by default the first alone. After
            `jax.distributed.initialize` they may be those of several processes, each of which calls `train` with the
            same arguments, reads all items and gets the same training; the first one writes to the folder.
        progress: called as progress(step, steps of an epoch, mean bound so far).

    What the first epoch has not yet judged is in `latest` alone. Ctrl-C ends training with status `interrupted`, at the
    step that was last done. Items with infinite or nan values, and steps whose bound or gradient is not finite, are
    left out with a `TrainingDataWarning` and counted.

    Raises:
        InputError: for an empty corpus, items that cannot be read or of different shapes, a batch size that the devices
            do not divide, complex weights, a network that no file can hold, a name in `frozen` that is none of the
            model's, or a checkpoint of another model, network, batch size, seed, number of items or, as far as corpora
            say what they are, other data, or of another origin.
    """
    settings = settings_or(TrainingSettings(), settings)
    layout = _checked(model, amortised, corpus, validation)
    data = ",".join([fingerprint_of(corpus, validation), *([origin] if origin else [])])
    start = begun(model, amortised, names_of(frozen), (settings.batch_size, settings.seed, len(corpus)), data)
    place, start = _placement(settings.batch_size, devices, start)
    path = None if folder is None else Path(folder) / CHECKPOINT
    with held(path and path.parent):
        state = start if path is None else opened(path, start, settings)
        return _trained(state, model, (corpus, validation), settings, path, place, layout, progress)


def _trained(
    state: Training,
    model: Model,
    corpora: tuple[Corpus, Corpus],
    settings: TrainingSettings,
    path: Path | None,
    place: Callable[[Batch], Batch],
    layout: list[tuple],
    progress: Progress | None,
) -> Training:
    """`train` from a state on."""
    corpus, validation = corpora
    steps, saved, started = num_batches(corpus, settings.batch_size), time.monotonic(), time.monotonic()
    read = {"layout": layout, "num_workers": settings.num_workers}
    try:
        while state.status is Status.running and state.epoch < settings.max_epochs:
            for batch in batches(
                corpus, settings.batch_size, seed=settings.seed, epoch=state.epoch, first=state.batch, **read
            ):
                state = _stepped(state, model, place(batch), settings, steps)
                if progress is not None:
                    progress(state.batch, steps, state.running[0] / max(state.running[1], 1))
                if path is not None and time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    save_training(path, state)
                    saved = time.monotonic()
            validated = _validated(state.latest, model, validation, settings.batch_size, place, **read)
            state, started = (
                _epoch_ended(state, model, validated, settings, time.monotonic() - started),
                time.monotonic(),
            )
            if path is not None:
                save_training(path, state)
                saved = time.monotonic()
    except KeyboardInterrupt:
        state = changed(state, status=Status.interrupted)
    except Exception:
        if path is not None:  # what was done until then is not lost
            save_training(path, state)
        raise
    if state.status is Status.running:
        state = changed(state, status=Status.max_steps)
    if path is not None:
        save_training(path, state)
    return state


def _checked(model: Model, amortised: Amortised, corpus: Corpus, validation: Corpus) -> list[tuple]:
    """Shapes and types of the items, when the model takes the first whole one of both corpora."""
    layouts = []
    for name, items in (("corpus", corpus), ("validation", validation)):
        if not isinstance(items, Corpus) or len(items) == 0:
            raise InputError(f"{name} must have items, by len() and [number]")
        arguments = (item_of(items, number) for number in range(len(items)))
        first = next((item for item in arguments if is_whole(item) and _has_values(item)), None)
        if first is None:
            raise InputError(f"{name}: all of its {len(items)} items hold infinite or nan values, or nothing but zeros")
        first = jax.tree.map(jnp.asarray, first)
        model.validate(*first)
        if not layouts:
            amortised.check(model, *first)
        layouts.append(layout_of(first))
    if layouts[0] != layouts[1]:
        raise InputError(f"validation has items of {layouts[1]}, corpus of {layouts[0]}; they must be alike")
    return layouts[0]


def _has_values(arguments: tuple) -> bool:
    """Whether it is not all silence, which recordings may well begin with."""
    return any(leaf.any() for leaf in jax.tree.leaves(arguments))


def _stepped(state: Training, model: Model, batch: Batch, settings: TrainingSettings, steps: int) -> Training:
    summed, number, skipped = state.running
    skipped += batch.skipped
    if batch.data is None:
        return changed(state, batch=state.batch + 1, running=(summed, number, skipped))
    rate = jnp.float32(settings.learning_rate * state.scale)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), state.epoch), state.batch)
    latest, optimizer, total, is_finite = _step(
        model,
        state.latest,
        state.optimizer,
        batch.data,
        batch.weights,
        rate,
        key,
        jnp.float32(state.epoch + state.batch / steps),
        settings.largest_gradient,
        settings.precision == "mixed",
    )
    items = float(np.sum(batch.weights))
    if bool(is_finite):
        summed, number = summed + float(total), number + items
    else:
        place = f"step {state.batch + 1} of epoch {state.epoch + 1}"
        warnings.warn(f"{place} has an infinite or nan bound or gradient and is left out", TrainingDataWarning, 2)
        skipped += int(items)
    return changed(state, latest=latest, optimizer=optimizer, batch=state.batch + 1, running=(summed, number, skipped))


@compiled
def _step(
    model: Model,
    learnt: Learnt,
    optimizer: Any,
    data: tuple,
    weights: Float[Array, " items"],
    rate: Float[Array, ""],
    key: Array,
    epoch: Float[Array, ""],
    largest_gradient: float,
    is_mixed: bool,
) -> tuple[Learnt, Any, Float[Array, ""], Bool[Array, ""]]:
    """A step of gradient ascent, unless bound or gradient are not finite, and whether they are."""
    moving, fixed = eqx.partition(learnt, eqx.is_inexact_array)
    size = jax.tree.leaves(data)[0][0].size

    def loss(moving: Learnt) -> tuple[Array, Array]:
        learnt = eqx.combine(moving, fixed)
        if is_mixed:
            learnt = eqx.tree_at(lambda learnt: learnt.amortised, learnt, _halved(learnt.amortised))
        total = _summed_objectives(model, learnt, data, weights, key, epoch)
        return -total / (jnp.maximum(weights.sum(), 1).astype(total.dtype) * size), total

    with relaxed_promotion():
        gradient, total = jax.grad(loss, has_aux=True)(moving)
        change, moved = optimizer_of(largest_gradient).update(gradient, optimizer, moving)
        after = jax.tree.map(lambda a, b: a - rate.astype(a.dtype) * b, moving, change)
        is_finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, total))]).all()
        kept = jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), (after, moved), (moving, optimizer))
    return eqx.combine(kept[0], fixed), kept[1], total, is_finite


def _halved(amortised: Amortised) -> Amortised:
    """With weights in bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, amortised)


def _summed_bounds(model: Model, learnt: Learnt, data: tuple, weights: Float[Array, " items"]) -> Float[Array, ""]:
    model = _learnt_model(model, learnt)
    bounds = jax.vmap(lambda item: learnt.amortised.bound(model, *item))(data)
    return (weights.astype(bounds.dtype) * bounds).sum()


def _summed_objectives(
    model: Model, learnt: Learnt, data: tuple, weights: Float[Array, " items"], key: Array, epoch: Float[Array, ""]
) -> Float[Array, ""]:
    model = _learnt_model(model, learnt)
    keys = jax.random.split(key, len(weights))
    values = jax.vmap(lambda item, key: learnt.amortised.objective(model, item, key, epoch))(data, keys)
    return (weights.astype(values.dtype) * values).sum()


def _learnt_model(model: Model, learnt: Learnt) -> Model:
    kinds = model.parameter_kinds()
    return model.replace(
        **{name: kinds[name].constrain(v) if name in kinds else v for name, v in learnt.parameters.items()}
    )


@compiled
def _evaluated(model: Model, learnt: Learnt, data: tuple, weights: Float[Array, " items"]) -> Float[Array, ""]:
    return _summed_bounds(model, learnt, data, weights)


def _validated(
    learnt: Learnt, model: Model, corpus: Corpus, batch_size: int, place: Callable[[Batch], Batch], **read: Any
) -> tuple[float, int]:
    """The mean bound of a corpus's items, and how many were left out."""
    total, number, skipped = 0.0, 0.0, 0
    for batch in map(place, batches(corpus, batch_size, seed=0, epoch=None, **read)):
        skipped += batch.skipped
        if batch.data is not None:
            total += float(_evaluated(model, learnt, batch.data, batch.weights))
            number += float(np.sum(batch.weights))
    return total / number, skipped


def _epoch_ended(
    state: Training, model: Model, validated: tuple[float, int], settings: TrainingSettings, seconds: float
) -> Training:
    summed, number, skipped = state.running
    bound, validation_skipped = validated
    entry = {
        "epoch": state.epoch,
        "training_bound": summed / max(number, 1),
        "validation_bound": bound,
        "learning_rate": settings.learning_rate * state.scale,
        "skipped": skipped,
        "validation_skipped": validation_skipped,
        "seconds": round(seconds, 3),
    }
    changes: dict[str, Any] = {
        "history": (*state.history, entry),
        "epoch": state.epoch + 1,
        "batch": 0,
        "running": (0.0, 0.0, 0),
    }
    if not np.isfinite(bound) or number == 0:
        return changed(state, status=Status.nonfinite, **changes)
    if bound > state.best:
        best = {"model": _learnt_model(model, state.latest), "amortised": state.latest.amortised, "best": bound}
        return changed(state, waited=0, **best, **changes)
    waited = state.waited + 1
    scale = state.scale * (settings.decay if waited % settings.patience == 0 else 1)
    status = Status.converged if waited >= settings.stop_after else Status.running
    return changed(state, waited=waited, scale=scale, status=status, **changes)


def _placement(
    batch_size: int, devices: Sequence[Any] | None, state: Training
) -> tuple[Callable[[Batch], Batch], Training]:
    """What puts a batch on the devices, a part on each, and the state on all of them."""
    if devices is None:
        return lambda batch: batch, state
    if not devices or batch_size % len(devices):
        raise InputError(f"batch_size ({batch_size}) must be a multiple of the number of devices ({len(devices)})")
    mesh = Mesh(np.array(devices), ("items",))
    parts, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("items",), ()))

    def place(batch: Batch) -> Batch:
        if batch.data is None:
            return batch
        return batch._replace(data=placed(batch.data, parts), weights=placed(batch.weights, parts))

    def spread(tree: Any) -> Any:
        return placed(tree, everywhere)

    return place, changed(state, latest=spread(state.latest), optimizer=spread(state.optimizer))
