"""Models of one shape one after the other, each started where the last one ended, in one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vbss.compilation import compiled
from vbss.errors import InputError, whole_number
from vbss.inference.em import EM
from vbss.inference.fit import checked_key, prepare
from vbss.inference.loop import LONGEST_CHUNK, fingerprint, judged, real_dtype, run_chunk, strong
from vbss.inference.solution import Solution, Status
from vbss.posteriors import Posterior
from vbss.program import Model

HandOver = Callable[[Model, Model, Posterior, tuple], Posterior]


def fit_stages(
    models: Sequence[Model],
    data: Any,
    algorithm: EM | None = None,
    *,
    hand_over: HandOver,
    start: Any = None,
    steps: int = 20,
    key: Array | None = None,
) -> tuple[Solution, list[Float[np.ndarray, " steps"]]]:
    """Infer with models that differ in the values of their arrays alone: scales, levels of tying, temperatures.

    Args:
        models: the stages; nothing of them is learnt (no field of a kind), all that is stands in the posterior.
        algorithm: of all stages; its tolerance ends a stage early.
        hand_over: hand_over(model, earlier model, posterior, data) is where a stage starts from the last one's
            posterior; a pure function of pytrees.
        start: of the first stage, as for `vbss.fit`.
        steps: of each stage at most, up to 50.

    Returns:
        The last stage's solution, and the bound of every stage before each of its steps; those of different stages are
        comparable where their models bound the same evidence.

    Raises:
        InputError: for models of different shapes or with learnt fields; else as of `vbss.fit`.
    """
    algorithm = EM() if algorithm is None else algorithm
    if not isinstance(algorithm, EM):
        raise InputError(f"algorithm must be a vbss.EM, got {type(algorithm).__name__}")
    steps = whole_number("steps", steps, 1, LONGEST_CHUNK)
    if not models or any(model.parameter_kinds() for model in models):
        raise InputError("models must be at least one, without learnt fields")
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(model) if eqx.is_array(leaf)] for model in models]
    if any(jax.tree.structure(model) != jax.tree.structure(models[0]) for model in models) or any(
        shape != shapes[0] for shape in shapes
    ):
        raise InputError("models must differ in the values of their arrays alone")
    arguments = prepare(models[0], data)
    start = start.posterior if isinstance(start, Solution) else start
    posterior = algorithm.begin(models[0], arguments, start, checked_key(key))
    static = eqx.filter(models[0], eqx.is_array, inverse=True)
    arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[eqx.filter(strong(m), eqx.is_array) for m in models])
    found = _all_stages(algorithm, hand_over, arrays, static, strong(posterior), arguments, jnp.int32(steps))
    posterior, memory, traces, counts, codes, last, code = found
    bounds = [np.asarray(trace)[: int(count)] for trace, count in zip(traces, counts, strict=True)]
    status = judged(Status(int(codes[-1])), Status(int(code)))
    status = Status.max_steps if status is Status.running else status
    elbo = np.append(bounds[-1], np.asarray(last)[:1])
    going_on = {"algorithm": posterior, "rule": memory, "data": fingerprint(arguments)}
    return Solution(models[-1], posterior, elbo, status, len(bounds[-1]), going_on), bounds


@compiled
def _all_stages(
    algorithm: EM, hand_over: HandOver, arrays: Any, static: Any, posterior: Posterior, data: tuple, num_steps: Array
) -> tuple[Posterior, Any, Array, Array, Array, Array, Array]:
    fixed = eqx.filter(posterior, eqx.is_array, inverse=True)
    begun = algorithm.rule.begin(real_dtype(data))

    def run(model: Model, posterior: Posterior, num_steps: Array) -> tuple[Any, Any, Array, Array, Array]:
        constants = algorithm.constants(model, posterior, data)
        _, posterior, memory, *judgement = run_chunk(algorithm, model, posterior, begun, data, constants, num_steps)
        return eqx.filter(posterior, eqx.is_array), memory, *judgement

    def stage(carry: tuple[Any, Any, Any], now: Any) -> tuple[tuple[Any, Any, Any], tuple[Array, ...]]:
        before, state, _ = carry
        model = eqx.combine(now, static)
        posterior = hand_over(model, eqx.combine(before, static), eqx.combine(state, fixed), data)
        state, memory, *judgement = run(model, posterior, num_steps)
        return (now, state, memory), tuple(judgement)

    first = jax.tree.map(lambda leaf: leaf[0], arrays)
    carry = (first, eqx.filter(posterior, eqx.is_array), begun)
    (model, state, memory), (traces, counts, codes) = jax.lax.scan(stage, carry, arrays)
    posterior = eqx.combine(state, fixed)
    # The bound of the final state, by a step that is not used.
    *_, last, _, code = run(eqx.combine(model, static), posterior, jnp.int32(1))
    return posterior, memory, traces, counts, codes, last, code
