"""Where training stands."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbss.errors import InputError, one_of
from vbss.inference.amortised import Amortised
from vbss.inference.loop import strong
from vbss.inference.solution import Status
from vbss.program import Model


class Learnt(eqx.Module):
    """What training moves.

    Attributes:
        amortised: the network, as part of what it serves.
        parameters: of the model, unconstrained, and its networks.
    """

    amortised: Amortised
    parameters: dict[str, Any]


class Training(eqx.Module):
    """Where training stands; what `train` returns.

    Attributes:
        model: with its learnt parameters, as they were best.
        amortised: with the network, as it was best: that of the highest validation bound.
        status: `max_steps` after `max_epochs`, `converged` when the validation bound did not rise any more,
            `interrupted`, or `nonfinite`.
        history: for each epoch its mean bounds on the training and the validation corpus (nats per item), learning
            rate, numbers of items left out and seconds.
        latest: what the next step moves.
        optimizer: its state.
        epoch, batch: of the next step.
        scale: of the learning rate, which has fallen to it.
        best: the highest validation bound.
        waited: epochs since then.
        running: of the epoch under way, the summed bounds, number of items and of those left out.
        order: what the order of the items depends on, (batch size, seed, number of items): it must not change.
        data: what the corpora say that they are, and where training began if that was told.
    """

    model: Model
    amortised: Amortised
    status: Status
    history: tuple[dict[str, Any], ...]
    latest: Learnt
    optimizer: Any
    epoch: int
    batch: int
    scale: float
    best: float
    waited: int
    running: tuple[float, float, int]
    order: tuple[int, int, int]
    data: str


def begun(
    model: Model, amortised: Amortised, frozen: tuple[str, ...], order: tuple[int, int, int], data: str
) -> Training:
    kinds = model.parameter_kinds()
    for name in frozen:
        one_of("frozen", name, sorted({*kinds, *model.network_names()}))
    parameters = {name: kind.unconstrain(getattr(model, name)) for name, kind in kinds.items()}
    parameters |= {name: getattr(model, name) for name in model.network_names()}
    parameters = {name: value for name, value in parameters.items() if name not in frozen}
    learnt = strong(Learnt(amortised, parameters))
    moving = eqx.filter(learnt, eqx.is_inexact_array)
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(moving)):
        raise InputError("amortised: weights must be real; a complex one can be made of two inside the network")
    return Training(
        model=model,
        amortised=amortised,
        status=Status.running,
        history=(),
        latest=learnt,
        optimizer=strong(optimizer_of(1.0).init(moving)),
        epoch=0,
        batch=0,
        scale=1.0,
        best=-float("inf"),
        waited=0,
        running=(0.0, 0.0, 0),
        order=order,
        data=data,
    )


def optimizer_of(largest_gradient: float) -> Any:
    import optax  # slow to import, and the command line has no use for it

    return optax.chain(optax.clip_by_global_norm(largest_gradient), optax.scale_by_adam())


def placed(tree: Any, sharding: Any) -> Any:
    """Arrays on devices, perhaps of several processes, each of which has all values: no word between them is needed."""

    def anew(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        if getattr(leaf, "sharding", None) == sharding:
            return leaf
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(anew, tree)


def changed(state: Training, **fields: Any) -> Training:
    return dataclasses.replace(state, **fields)
