"""Several starts of one recording, of which the bound chooses."""

from collections.abc import Mapping, Sequence
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
from vbss.inference.fit import checked_key, fit, prepare
from vbss.inference.loop import LONGEST_CHUNK, fingerprint, judged, real_dtype, run_chunk, strong
from vbss.inference.solution import Solution, Status
from vbss.posteriors import AbstractPosterior
from vbss.program import Model


def fit_best(
    model: Model,
    data: Any,
    algorithm: Algorithm | None = None,
    *,
    starts: Sequence[Any],
    trial_steps: int = 10,
    max_steps: int | None = None,
    key: Array | None = None,
) -> Solution:
    """The best of several starts: each is tried for some steps, and the one of the highest bound is gone on with.

    The bounds of one model on the same data are comparable; those of models that differ in size are not. One compiled
    program tries all starts, one after the other on a CPU and together on an accelerator.

    Args:
        model, data, algorithm, key: as for `vbss.fit`.
        starts: {site: probabilities or value} or a posterior for each; at least one.
        trial_steps: steps of every start, up to 50.
        max_steps: of the one that is chosen, its trial included.

    Returns:
        The chosen one's solution, as `vbss.fit` gives it; a start whose trial fails is not chosen before any other.

    Raises:
        InputError: as of `vbss.fit`, or without a start.
    """
    algorithm = EM() if algorithm is None else algorithm
    if not isinstance(algorithm, Algorithm):
        raise InputError(f"algorithm must be a vbss algorithm such as vbss.EM(), got {type(algorithm).__name__}")
    trial_steps = whole_number("trial_steps", trial_steps, 1, LONGEST_CHUNK)
    max_steps = algorithm.default_steps if max_steps is None else whole_number("max_steps", max_steps, 0)
    if not starts:
        raise InputError("starts must hold at least one start")
    for start in starts:
        if not isinstance(start, Mapping | AbstractPosterior):
            raise InputError(f"starts must be mappings of sites or posteriors, got a {type(start).__name__}")
    key = checked_key(key)
    if len(starts) == 1 or max_steps == 0:
        return fit(model, data, algorithm, key=key, start=starts[0], max_steps=max_steps)
    arguments = prepare(model, data)
    keys = jax.random.split(key, len(starts))
    begun = [algorithm.begin(model, arguments, start, k) for start, k in zip(starts, keys, strict=True)]
    states = _stacked([strong((model, state)) for state in begun])
    memories = _stacked([algorithm.rule.begin(real_dtype(arguments))] * len(starts))

    def go_on(states: Any, memories: Any, steps: np.ndarray) -> tuple[Any, Any, list[np.ndarray], np.ndarray]:
        """So many steps from each state, none from most but in the trial; and the bounds before each of them."""
        states, memories, traces, counts, codes = _going(
            algorithm, states, memories, arguments, jnp.asarray(steps, jnp.int32)
        )
        bounds = [trace[:count] for trace, count in zip(np.asarray(traces), np.asarray(counts), strict=True)]
        return states, memories, bounds, np.asarray(codes)

    # At least one step, by which the bound of a start is known.
    states, memories, bounds, codes = go_on(states, memories, np.full(len(starts), max(1, min(trial_steps, max_steps))))
    last = np.array([bound[-1] for bound in bounds])
    best = int(np.argmax(np.where(np.isfinite(last), last, -np.inf)))
    trace, status, chosen = [bounds[best]], Status(int(codes[best])), np.arange(len(starts)) == best
    done = len(trace[0])
    try:
        while status is Status.running and done < max_steps:
            steps = min(LONGEST_CHUNK, max_steps - done)
            states, memories, bounds, codes = go_on(states, memories, chosen * steps)
            trace.append(bounds[best])
            done, status = done + len(bounds[best]), Status(int(codes[best]))
        ended = status
        if algorithm.judges_end:
            # The bound of the final state, by a step that is not used.
            *_, bounds, codes = go_on(states, memories, chosen * 1)
            trace.append(bounds[best])
            ended = judged(status, Status(int(codes[best])))
        status = Status.max_steps if ended is Status.running else ended
    except KeyboardInterrupt:
        status = Status.interrupted if status is Status.running else status
    found, state, memory = jax.tree.map(lambda a: a[best] if eqx.is_array(a) else a, (*states, memories))
    going_on = {"algorithm": state, "rule": memory, "data": fingerprint(arguments)}
    posterior = algorithm.posterior(found, state, arguments)
    return Solution(found, posterior, np.concatenate(trace), status, done, going_on)


@compiled
def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@compiled
def _going(
    algorithm: Algorithm, states: Any, memories: Any, data: tuple, num_steps: Array
) -> tuple[Any, Any, Array, Array, Array]:
    """So many steps from every state."""
    arrays, static = eqx.partition((states, memories), eqx.is_array)

    def of_one(inputs: tuple[Any, Array]) -> tuple[Any, Array, Array, Array]:
        (model, state), memory = eqx.combine(inputs[0], static)
        constants = algorithm.constants(model, state, data)
        model, state, memory, *judgement = run_chunk(algorithm, model, state, memory, data, constants, inputs[1])
        return eqx.filter(((model, state), memory), eqx.is_array), *judgement

    together = jax.default_backend() != "cpu"
    inputs = (arrays, num_steps)
    arrays, traces, counts, codes = jax.vmap(of_one)(inputs) if together else jax.lax.map(of_one, inputs)
    return *eqx.combine(arrays, static), traces, counts, codes
