"""Many recordings of one shape at once, in one compiled loop."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbss.compilation import compiled
from vbss.errors import InputError, whole_number
from vbss.inference.algorithm import Algorithm
from vbss.inference.em import EM
from vbss.inference.fit import checked_key, prepare
from vbss.inference.loop import LONGEST_CHUNK, fingerprint, judged, real_dtype, run_chunk, strong
from vbss.inference.solution import Solution, Status
from vbss.program import Model

Progress = Callable[[int, int], Any]


def fit_batch(
    model: Model,
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    key: Array | None = None,
    starts: Sequence[Any] | None = None,
    max_steps: int | None = None,
    progress: Progress | None = None,
) -> list[Solution]:
    """Infer the posteriors and parameters of many recordings of one shape, each by itself, as `vbss.fit` does.

    One program serves all of them. On a CPU it takes one after the other (`jax.lax.map`), which needs the least memory;
    on an accelerator all together (`jax.vmap`), for as long as the slowest takes.

    Args:
        data: what the program takes, with one more axis in front of every array: the recordings.
        key: JAX random key, of which each recording gets its own; by default `jax.random.key(0)`.
        starts: for each recording, where to begin, as for `vbss.fit`, but no `Solution`; by default the model's own.
        progress: called as progress(steps, max_steps) after each stretch of steps, with the steps of the slowest.
        model, algorithm, max_steps: as for `vbss.fit`.

    Returns:
        A solution for each recording, with the model and posterior that `vbss.fit` would find from this start and key;
        bounds differ by rounding. Ctrl-C ends those that still run with status `interrupted`.

    Raises:
        InputError: as `vbss.fit`, and where the arrays do not have the same number of recordings.
    """
    algorithm = EM() if algorithm is None else algorithm
    if not isinstance(algorithm, Algorithm):
        raise InputError(f"algorithm must be a vbss algorithm such as vbss.EM(), got {type(algorithm).__name__}")
    max_steps = algorithm.default_steps if max_steps is None else whole_number("max_steps", max_steps, 0)
    recordings = [prepare(model, recording) for recording in _separated(data)]
    number = len(recordings)
    starts = [None] * number if starts is None else list(starts)
    if len(starts) != number or any(isinstance(start, Solution) for start in starts):
        raise InputError(f"starts must hold one start, not a Solution, for each of {number} recordings")
    keys = jax.random.split(checked_key(key), number)
    states = [algorithm.begin(model, r, s, k) for r, s, k in zip(recordings, starts, keys, strict=True)]
    memory = algorithm.rule.begin(real_dtype(recordings[0]))
    going = _stacked([strong((model, state, memory, r)) for state, r in zip(states, recordings, strict=True)])

    bounds: list[list[np.ndarray]] = [[] for _ in recordings]
    done, statuses = np.zeros(number, int), [Status.running] * number
    ended = statuses
    try:
        while any(steps := _steps_left(statuses, done, max_steps)):
            going, trace, count, codes = _chunks(algorithm, going, jnp.asarray(steps, jnp.int32))
            for index, steps_done in enumerate(np.asarray(count)):
                if steps_done:
                    bounds[index].append(np.asarray(trace[index, :steps_done]))
                    statuses[index] = Status(int(codes[index]))
            done += np.asarray(count)
            if progress is not None:
                progress(int(done.min()), max_steps)
        ended = list(statuses)
        if algorithm.judges_end:
            _, trace, _, codes = _chunks(algorithm, going, jnp.ones(number, jnp.int32))
            for index, code in enumerate(np.asarray(codes)):
                bounds[index].append(np.asarray(trace[index, :1]))
                ended[index] = judged(statuses[index], Status(int(code)))
        ended = [Status.max_steps if status is Status.running else status for status in ended]
    except KeyboardInterrupt:
        ended = [Status.interrupted if status is Status.running else status for status in statuses]

    solutions = []
    for index, recording in enumerate(recordings):
        found, state, memory, _ = jax.tree.map(lambda a, i=index: a[i] if eqx.is_array(a) else a, going)
        elbo = np.concatenate(bounds[index]) if bounds[index] else np.zeros(0)
        going_on = {"algorithm": state, "rule": memory, "data": fingerprint(recording)}
        posterior = algorithm.posterior(found, state, recording)
        solutions.append(Solution(found, posterior, elbo, ended[index], int(done[index]), going_on))
    return solutions


def _separated(data: Any) -> list[tuple]:
    """The data of each recording."""
    given = data if isinstance(data, tuple) else (data,)
    leaves = jax.tree.leaves(given)
    lengths = {np.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        shapes = [np.shape(leaf) for leaf in leaves]
        raise InputError(f"data: all arrays must begin with the same number of recordings, at least 1, got {shapes}")
    (number,) = lengths.pop()
    return [jax.tree.map(lambda leaf, i=index: leaf[i], given) for index in range(number)]


def _steps_left(statuses: list[Status], done: np.ndarray, max_steps: int) -> list[int]:
    """What each recording has to do in the next stretch."""
    return [
        min(LONGEST_CHUNK, max_steps - int(steps)) if status is Status.running else 0
        for status, steps in zip(statuses, done, strict=True)
    ]


@compiled
def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@compiled
def _chunks(algorithm: Algorithm, going: Any, num_steps: Array) -> tuple[Any, Array, Array, Array]:
    """A stretch of steps of each recording: none, where it has ended."""
    arrays, static = eqx.partition(going, eqx.is_array)

    def of_one(inputs: tuple[Any, Array]) -> tuple[Any, Array, Array, Array]:
        model, state, memory, data = eqx.combine(inputs[0], static)
        constants = algorithm.constants(model, state, data)
        *later, trace, count, code = run_chunk(algorithm, model, state, memory, data, constants, inputs[1])
        return eqx.filter((*later, data), eqx.is_array), trace, count, code

    inputs = (arrays, num_steps)
    arrays, trace, count, code = jax.vmap(of_one)(inputs) if _together() else jax.lax.map(of_one, inputs)
    return eqx.combine(arrays, static), trace, count, code


def _together() -> bool:
    return jax.default_backend() != "cpu"
