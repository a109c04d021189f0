"""The loop that trains networks: gradient ascent on the bound over a corpus, which can be stopped and goes on."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.inference.amortised import Amortised
from vbss.inference.solution import Status
from vbss.program import Model
from vbss.storage import load, save
from vbss.storage.layout import classes_in
from vbss.training.batches import Batch, Corpus, batches, num_batches
from vbss.training.settings import TrainingSettings

Progress = Callable[[int, int, float], Any]
_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_CHECKPOINT, _METRICS = "checkpoint.vbss", "metrics.jsonl"


class Learnt(eqx.Module):
    """What training moves.

    Attributes:
        amortised: the network, as part of what it serves.
        parameters: of the model, unconstrained.
    """

    amortised: Amortised
    parameters: dict[str, Array]


class Training(eqx.Module):
    """Where training stands; what `train` returns.

    Attributes:
        model: with its learnt parameters, as they were best.
        amortised: with the network, as it was best: that of the highest validation bound.
        status: `max_steps` after `max_epochs`, `converged` when the validation bound did not rise any more,
            `interrupted`, or `nonfinite`.
        history: for each epoch its mean bounds on the training and the validation corpus (nats per item), learning
            rate, number of items left out and seconds.
        latest: what the next step moves.
        optimizer: its state.
        epoch, batch: of the next step.
        rate: the learning rate.
        best: the highest validation bound.
        waited: epochs since then.
        running: of the epoch under way, the summed bounds, number of items and of those left out.
    """

    model: Model
    amortised: Amortised
    status: Status
    history: tuple[dict[str, Any], ...]
    latest: Learnt
    optimizer: Any
    epoch: int
    batch: int
    rate: float
    best: float
    waited: int
    running: tuple[float, float, int]


def train(
    model: Model,
    amortised: Amortised,
    corpus: Corpus,
    validation: Corpus,
    settings: TrainingSettings | None = None,
    *,
    folder: str | Path | None = None,
    devices: Sequence[Any] | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train the network of an amortised posterior, and the parameters of its model, to raise the bound of a corpus.

    Args:
        corpus: items that are the arguments of the model's program, all of the same shapes.
        validation: another such, by whose bound the learning rate falls and training ends.
        settings: by default `TrainingSettings()`.
        folder: holds `checkpoint.vbss`, written every minute and after each epoch, and `metrics.jsonl`, a line for each
            epoch. If there is a checkpoint, training goes on from it, through the same states as if it had not stopped.
        devices: over which batches are divided, such as `jax.devices()`; by default the first alone.
        progress: called as progress(step, steps of an epoch, mean bound so far).

    Ctrl-C ends training with status `interrupted`, at the step that was last done.

    Raises:
        InputError: for an empty corpus, items of different shapes, a batch size that the devices do not divide, or a
            checkpoint of another model or network.
    """
    settings = TrainingSettings() if settings is None else settings
    for name, items in (("corpus", corpus), ("validation", validation)):
        if not isinstance(items, Corpus) or len(items) == 0:
            raise InputError(f"{name} must have items, by len() and [number]")
    place = _placement(settings.batch_size, devices)
    first = corpus[0]
    model.validate(*jax.tree.map(jnp.asarray, first if isinstance(first, tuple) else (first,)))
    state = _begun(model, amortised)
    path = None if folder is None else Path(folder) / _CHECKPOINT
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path is not None and path.exists():
        state = _resumed(path, state)
    last, begun = time.monotonic(), time.monotonic()
    steps = num_batches(corpus, settings.batch_size)
    while state.status is Status.running:
        if state.epoch >= settings.max_epochs:
            state = eqx.tree_at(lambda s: s.status, state, Status.max_steps)
            break
        try:
            for batch in batches(corpus, settings.batch_size, seed=settings.seed, epoch=state.epoch, first=state.batch,
                                 num_workers=settings.num_workers):  # fmt: skip
                state = _stepped(state, model, place(batch), settings)
                if progress is not None:
                    progress(state.batch, steps, state.running[0] / max(state.running[1], 1))
                if path is not None and time.monotonic() - last > _SECONDS_BETWEEN_CHECKPOINTS:
                    save(path, state)
                    last = time.monotonic()
            bound = _validated(state, model, validation, settings, place)
        except KeyboardInterrupt:
            state = _with(state, status=Status.interrupted)
            break
        state, begun = _epoch_ended(state, model, bound, settings, time.monotonic() - begun), time.monotonic()
        if path is not None:
            save(path, state)
            with open(path.parent / _METRICS, "a") as file:
                file.write(json.dumps(state.history[-1]) + "\n")
    if path is not None:
        # An interrupted training goes on; one that has ended has ended.
        is_stopped = state.status in (Status.interrupted, Status.max_steps)
        save(path, _with(state, status=Status.running) if is_stopped else state)
    return state


def mean_bound(
    model: Model, amortised: Amortised, corpus: Corpus, settings: TrainingSettings | None = None
) -> Float[np.ndarray, ""]:
    """The mean bound of a corpus's items, nats."""
    settings = TrainingSettings() if settings is None else settings
    return np.asarray(_validated(_begun(model, amortised), model, corpus, settings, lambda batch: batch))


def _begun(model: Model, amortised: Amortised) -> Training:
    kinds = model.parameter_kinds()
    parameters = {name: kind.unconstrain(getattr(model, name)) for name, kind in kinds.items()}
    learnt = Learnt(amortised, parameters)
    optimizer = _optimizer(1.0).init(eqx.filter(learnt, eqx.is_inexact_array))
    return Training(model, amortised, Status.running, (), learnt, optimizer, 0, 0, 0.0, -float("inf"), 0, (0.0, 0.0, 0))


def _optimizer(largest_gradient: float) -> Any:
    import optax  # slow to import, and the command line has no use for it

    return optax.chain(optax.clip_by_global_norm(largest_gradient), optax.scale_by_adam())


def _stepped(state: Training, model: Model, batch: Batch, settings: TrainingSettings) -> Training:
    rate = settings.learning_rate if state.rate == 0 else state.rate
    latest, optimizer, total = _step(
        model, state.latest, state.optimizer, batch.data, batch.weights, jnp.float32(rate), settings.largest_gradient
    )
    summed, number, skipped = state.running
    running = (summed + float(total), number + float(np.sum(batch.weights)), skipped + batch.skipped)
    return _with(state, latest=latest, optimizer=optimizer, rate=rate, batch=state.batch + 1, running=running)


@compiled
def _step(
    model: Model,
    learnt: Learnt,
    optimizer: Any,
    data: tuple,
    weights: Float[Array, " items"],
    rate: Float[Array, ""],
    largest_gradient: float,
) -> tuple[Learnt, Any, Float[Array, ""]]:
    """A step of gradient ascent; none where bound or gradient are not finite."""
    moving, fixed = eqx.partition(learnt, eqx.is_inexact_array)
    size = jax.tree.leaves(data)[0][0].size

    def loss(moving: Learnt) -> tuple[Array, Array]:
        total = _summed_bounds(model, eqx.combine(moving, fixed), data, weights)
        return -total / (jnp.maximum(weights.sum(), 1).astype(total.dtype) * size), total

    with relaxed_promotion():
        gradient, total = jax.grad(loss, has_aux=True)(moving)
        change, moved = _optimizer(largest_gradient).update(gradient, optimizer, moving)
        after = jax.tree.map(lambda a, b: a - rate.astype(a.dtype) * b, moving, change)
        is_finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, total))]).all()
        kept = jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), (after, moved), (moving, optimizer))
    return eqx.combine(kept[0], fixed), kept[1], total


def _summed_bounds(model: Model, learnt: Learnt, data: tuple, weights: Float[Array, " items"]) -> Float[Array, ""]:
    kinds = model.parameter_kinds()
    model = model.replace(**{name: kinds[name].constrain(value) for name, value in learnt.parameters.items()})
    bounds = jax.vmap(lambda item: learnt.amortised.bound(model, *item))(data)
    return (weights.astype(bounds.dtype) * bounds).sum()


@compiled
def _evaluated(model: Model, learnt: Learnt, data: tuple, weights: Float[Array, " items"]) -> Float[Array, ""]:
    return _summed_bounds(model, learnt, data, weights)


def _validated(state: Training, model: Model, corpus: Corpus, settings: TrainingSettings, place: Any) -> float:
    total = number = 0.0
    for batch in batches(corpus, settings.batch_size, seed=0, epoch=None, num_workers=settings.num_workers):
        placed = place(batch)
        total += float(_evaluated(model, state.latest, placed.data, placed.weights))
        number += float(np.sum(batch.weights))
    return total / number


def _epoch_ended(state: Training, model: Model, bound: float, settings: TrainingSettings, seconds: float) -> Training:
    summed, number, skipped = state.running
    entry = {
        "epoch": state.epoch,
        "training_bound": summed / max(number, 1),
        "validation_bound": bound,
        "learning_rate": state.rate,
        "skipped": skipped,
        "seconds": round(seconds, 3),
    }
    changes: dict[str, Any] = {
        "history": (*state.history, entry),
        "epoch": state.epoch + 1,
        "batch": 0,
        "running": (0.0, 0.0, 0),
    }
    if not np.isfinite(bound):
        return _with(state, status=Status.nonfinite, **changes)
    if bound > state.best:
        kinds = model.parameter_kinds()
        parameters = {name: kinds[name].constrain(value) for name, value in state.latest.parameters.items()}
        best = {"model": model.replace(**parameters), "amortised": state.latest.amortised, "best": bound}
        return _with(state, waited=0, **best, **changes)
    waited = state.waited + 1
    rate = state.rate * (settings.decay if waited % settings.patience == 0 else 1)
    status = Status.converged if waited >= settings.stop_after else Status.running
    return _with(state, waited=waited, rate=rate, status=status, **changes)


def _with(state: Training, **fields: Any) -> Training:
    known = {name: getattr(state, name) for name in Training.__dataclass_fields__}
    return Training(**known | fields)


def _resumed(path: Path, begun: Training) -> Training:
    found = load(path, *classes_in(begun))
    layout = [jax.tree.structure(eqx.filter(s, eqx.is_array)) for s in (begun.latest, getattr(found, "latest", None))]
    shapes = [[leaf.shape for leaf in jax.tree.leaves(eqx.filter(s, eqx.is_array))] for s in (begun.latest, getattr(
        found, "latest", None))]  # fmt: skip
    if not isinstance(found, Training) or layout[0] != layout[1] or shapes[0] != shapes[1]:
        raise InputError(f"folder: {path} holds no training of this model and network")
    return found


def _placement(batch_size: int, devices: Sequence[Any] | None) -> Callable[[Batch], Batch]:
    """What puts a batch on the devices, a part on each."""
    if devices is None:
        return lambda batch: batch
    if not devices or batch_size % len(devices):
        raise InputError(f"batch_size ({batch_size}) must be a multiple of the number of devices ({len(devices)})")
    sharding = NamedSharding(Mesh(np.array(devices), ("items",)), PartitionSpec("items"))
    return lambda batch: batch._replace(**jax.device_put({"data": batch.data, "weights": batch.weights}, sharding))
