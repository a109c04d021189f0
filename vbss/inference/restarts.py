"""Several starts of one recording, of which the bound chooses."""

from collections.abc import Sequence
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
from vbss.inference.loop import LONGEST_CHUNK, fingerprint, real_dtype, run_chunk, strong
from vbss.inference.solution import Solution, Status
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
    trial_steps = whole_number("trial_steps", trial_steps, 1, LONGEST_CHUNK)
    max_steps = algorithm.default_steps if max_steps is None else whole_number("max_steps", max_steps, 0)
    if not starts:
        raise InputError("starts must hold at least one start")
    key = checked_key(key)
    if len(starts) == 1 or max_steps == 0:
        return fit(model, data, algorithm, key=key, start=starts[0], max_steps=max_steps)
    arguments = prepare(model, data)
    keys = jax.random.split(key, len(starts))
    begun = [algorithm.begin(model, arguments, start, k) for start, k in zip(starts, keys, strict=True)]
    states, steps = _stacked([strong((model, state)) for state in begun]), jnp.int32(min(trial_steps, max_steps))
    memory = algorithm.rule.begin(real_dtype(arguments))
    going, trace, count, codes = _tried(algorithm, states, memory, arguments, steps)
    counts, bounds = np.asarray(count), np.asarray(trace)
    last = bounds[np.arange(len(starts)), counts - 1]
    best = int(np.argmax(np.where(np.isfinite(last) & (np.asarray(codes) != Status.nonfinite.value), last, -np.inf)))
    found, state, memory = jax.tree.map(lambda a: a[best] if eqx.is_array(a) else a, going)
    elbo, num_steps, status = bounds[best, : counts[best]], int(counts[best]), Status(int(codes[best]))
    going_on = {"algorithm": state, "rule": memory, "data": fingerprint(arguments)}
    tried = Solution(found, algorithm.posterior(found, state, arguments), elbo, status, num_steps, going_on)
    rest = max_steps - num_steps if status is Status.running else 0
    continued = fit(found, data, algorithm, key=key, start=tried, max_steps=rest)
    ended = continued.status if status is Status.running else status
    bound = np.concatenate([elbo, continued.elbo])
    total = num_steps + continued.num_steps
    return Solution(continued.model, continued.posterior, bound, ended, total, continued.state)


@compiled
def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@compiled
def _tried(
    algorithm: Algorithm, states: Any, memory: Any, data: tuple, num_steps: Array
) -> tuple[Any, Array, Array, Array]:
    """Some steps from every state."""
    arrays, static = eqx.partition(states, eqx.is_array)

    def of_one(arrays: Any) -> tuple[Any, Array, Array, Array]:
        model, state = eqx.combine(arrays, static)
        constants = algorithm.constants(model, state, data)
        *later, trace, count, code = run_chunk(algorithm, model, state, memory, data, constants, num_steps)
        return eqx.filter(tuple(later), eqx.is_array), trace, count, code

    together = jax.default_backend() != "cpu"
    arrays, trace, count, code = jax.vmap(of_one)(arrays) if together else jax.lax.map(of_one, arrays)
    return eqx.combine(arrays, (*static, None)), trace, count, code
