"""The one loop: compiled once per shape, run in chunks of steps."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbss.context import relaxed_promotion
from vbss.errors import InputError, whole_number
from vbss.inference.algorithm import Algorithm
from vbss.inference.checkpoint import read_checkpoint
from vbss.inference.em import EM
from vbss.inference.loop import LONGEST_CHUNK, fingerprint, judged, real_dtype, run_chunk, strong
from vbss.inference.solution import Solution, Status
from vbss.posteriors import AbstractPosterior
from vbss.program import Model
from vbss.storage import save

Progress = Callable[[int, int, float], Any]
_FIRST_CHUNK = 2  # steps before the first look at progress and interruption
_SECONDS = 0.5  # between two looks
_SECONDS_BETWEEN_REPORTS = 0.4
_SECONDS_BETWEEN_CHECKPOINTS = 30.0


def fit(
    model: Model,
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    key: Array | None = None,
    start: Mapping[str, Any] | AbstractPosterior | Solution | None = None,
    max_steps: int | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Solution:
    """Infer a model's posterior and parameters from data.

    Args:
        model: the program with its parameters.
        data: what the program takes; a tuple is spread over its arguments.
        algorithm: how to infer: `EM()` (the default), `NaturalGradient()`, `SVI()`, `MonteCarloEM()`, `MCMC()`.
        key: JAX random key of the start and of all draws; by default `jax.random.key(0)`.
        start: where to begin: {site: probabilities or value}, the posterior of an inference, or a `Solution` (its model
            replaces `model`), which the same algorithm continues as if it had not stopped. By default the model's own
            `start`.
        max_steps: iterations at most, counted from here (from the first on when a checkpoint is resumed); by default
            the algorithm's `default_steps`.
        progress: called as progress(step, max_steps, elbo) about twice a second.
        checkpoint: a file that holds the run so far, written every half minute and at the end. If it exists, the run
            goes on from it, through the same states as if it had not stopped.

    Ctrl-C ends the run with status `interrupted` and all that was inferred until the last chunk of steps.

    Raises:
        ValueError: for data or a start that cannot be the model's, before any compilation.
    """
    algorithm = EM() if algorithm is None else algorithm
    if not isinstance(algorithm, Algorithm):
        raise InputError(
            f"algorithm must be a vbss algorithm such as vbss.EM(), got {type(algorithm).__name__}; several data of a "
            "program stand in a tuple."
        )
    max_steps = algorithm.default_steps if max_steps is None else whole_number("max_steps", max_steps, 0)
    arguments = prepare(model, data)
    key = checked_key(key)
    earlier = _Earlier(np.zeros(0), 0)
    resumed = None if checkpoint is None else read_checkpoint(checkpoint, model)
    if resumed is not None:
        if not algorithm.owns(resumed.state["algorithm"]):
            raise InputError(
                f"checkpoint: {checkpoint} holds a run of another algorithm than {type(algorithm).__name__}"
            )
        if resumed.state["data"] != fingerprint(arguments):
            raise InputError(f"checkpoint: {checkpoint} holds a run on other data")
        if resumed.status in (Status.converged, Status.bound_decreased, Status.nonfinite):
            return resumed
        start, earlier = resumed, _Earlier(resumed.elbo[: resumed.num_steps], resumed.num_steps)
    if isinstance(start, Solution):
        _check_model(model, start.model)
        model = start.model
        is_same = start.state is not None and start.state["data"] == fingerprint(arguments)
        if start.state is not None and algorithm.owns(start.state["algorithm"]) and (is_same or algorithm.moves_on):
            state, memory = start.state["algorithm"], start.state["rule"]
            algorithm.check_state(model, state, arguments)
            if resumed is None:
                memory = algorithm.rule.resumed(memory, real_dtype(arguments))
            return _run(model, state, memory, arguments, algorithm, max_steps, earlier, progress, checkpoint)
        start = start.posterior
    state = algorithm.begin(model, arguments, start, key)
    return _run(strong(model), strong(state), None, arguments, algorithm, max_steps, earlier, progress, checkpoint)


def _check_model(model: Model, begun: Model) -> None:
    """Raise ValueError where a solution to start from is of another model."""
    own, other = ([leaf.shape for leaf in jax.tree.leaves(m) if eqx.is_array(leaf)] for m in (model, begun))
    if type(begun) is not type(model) or own != other:
        raise InputError(
            f"start: the solution is of a {type(begun).__name__} with arrays of shapes {other}, the model is a "
            f"{type(model).__name__} with {own}"
        )


def checked_key(key: Any) -> Array:
    """The key, by default `jax.random.key(0)`; an `InputError` for what is none."""
    if key is None:
        return jax.random.key(0)
    is_typed = eqx.is_array(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    is_old = eqx.is_array(key) and key.dtype == jnp.uint32 and key.ndim == 1
    if not (is_typed or is_old):
        raise InputError(f"key must be one JAX random key, as jax.random.key(0) is, got {type(key).__name__}")
    return key


def prepare(model: Model, data: Any) -> tuple:
    """The program's arguments as arrays, checked to be finite, not empty and what the model takes.

    Raises:
        ValueError: otherwise, naming the argument.
    """
    given = data if isinstance(data, tuple) else (data,)
    arguments = tuple(jax.tree.map(_array, np.asarray(a) if isinstance(a, list) else a) for a in given)
    leaves = jax.tree.leaves(arguments)
    is_finite = np.asarray(_are_finite(leaves))
    for position, leaf in enumerate(leaves):
        if leaf.size == 0:
            raise InputError(f"data: argument {position} is empty, its shape is {leaf.shape}")
        if not is_finite[position]:
            raise InputError(f"data: argument {position} of shape {leaf.shape} holds infinite or nan values")
    for name, kind in model.parameter_kinds().items():
        value = getattr(model, name)
        if not eqx.is_inexact_array(value) or jnp.iscomplexobj(value) or bool(jnp.isnan(value).any()):
            raise InputError(
                f"{type(model).__name__}.{name} must be an array of real floating numbers without nan, got {value!r}"
            )
        with relaxed_promotion():
            if not bool(jnp.all(kind.support(value))):
                raise InputError(f"{type(model).__name__}.{name} must be {kind.support} as its kind is, got {value!r}")
    model.validate(*arguments)
    return arguments


@jax.jit
def _are_finite(leaves: list[Array]) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() if eqx.is_inexact_array(leaf) else jnp.array(True) for leaf in leaves])


def _array(value: Any) -> Array:
    if not eqx.is_array_like(value):
        raise InputError(f"data: must hold arrays of numbers, got {type(value).__name__}")
    return jnp.asarray(value)


class _Earlier(NamedTuple):
    """What a resumed run has done before."""

    elbo: np.ndarray
    num_steps: int


def _run(
    model: Model,
    state: Any,
    memory: Any,
    data: tuple,
    algorithm: Algorithm,
    max_steps: int,
    earlier: _Earlier,
    progress: Progress | None,
    checkpoint: str | Path | None,
) -> Solution:
    bounds = [earlier.elbo] if earlier.num_steps else []
    chunk = _FIRST_CHUNK
    memory = algorithm.rule.begin(real_dtype(data)) if memory is None else memory
    done, status = earlier.num_steps, Status.running
    constants = algorithm.constants(model, state, data)
    identity = fingerprint(data)
    saved, told = perf_counter(), -_SECONDS_BETWEEN_REPORTS

    def solution(status: Status) -> Solution:
        elbo = np.concatenate(bounds) if bounds else np.zeros(0)
        going_on = {"algorithm": state, "rule": memory, "data": identity}
        posterior = algorithm.posterior(model, state, data)
        return Solution(model, posterior, elbo, status, done, going_on)

    try:
        while status is Status.running and done < max_steps:
            started = perf_counter()
            num_steps = jnp.int32(min(chunk, max_steps - done))
            result = run_chunk(algorithm, model, state, memory, data, constants, num_steps)
            jax.block_until_ready(result)
            model, state, memory, trace, count, code = result
            bounds.append(np.asarray(trace)[: int(count)])
            done, status = done + int(count), Status(int(code))
            seconds_per_step = (perf_counter() - started) / int(count)
            chunk = int(np.clip(_SECONDS / seconds_per_step, 1, LONGEST_CHUNK))
            is_over = status is not Status.running or done >= max_steps
            if progress is not None and (is_over or perf_counter() - told > _SECONDS_BETWEEN_REPORTS):
                progress(done, max_steps, float(bounds[-1][-1]))
                told = perf_counter()
            if checkpoint is not None and perf_counter() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                save(checkpoint, solution(status))
                saved = perf_counter()
        ended = status
        if algorithm.judges_end:
            # The bound of the final state: one more step gives it without more to compile, and is itself not used.
            *_, trace, _, code = run_chunk(algorithm, model, state, memory, data, constants, jnp.int32(1))
            bounds.append(np.asarray(trace)[:1])
            ended = judged(status, Status(int(code)))
        status = Status.max_steps if ended is Status.running else ended
    except KeyboardInterrupt:
        status = Status.interrupted if status is Status.running else status
    result = solution(status)
    if checkpoint is not None:
        save(checkpoint, result)
    return result
