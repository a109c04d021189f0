"""The one loop: compiled once per shape, run in chunks of steps."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbss.expectation import Observations, observe
from vbss.inference.em import EM
from vbss.inference.solution import Solution, Status
from vbss.posterior import Posterior, initial_posterior
from vbss.program import Model

Progress = Callable[[int, int, float], Any]
_CHUNK = 10  # steps between two looks at progress and interruption


def fit(
    model: Model,
    data: Any,
    algorithm: EM | None = None,
    *,
    key: Array | None = None,
    start: Mapping[str, Any] | Posterior | Solution | None = None,
    max_steps: int = 200,
    progress: Progress | None = None,
) -> Solution:
    """Infer a model's posterior and parameters from data.

    Args:
        model: the program with its parameters.
        data: what the program takes; a tuple is spread over its arguments.
        algorithm: how to infer; by default `EM()`.
        key: JAX random key of the start; by default `jax.random.key(0)`.
        start: where to begin: {site: probabilities or value}, a `Posterior`, or a `Solution`, which is continued exactly as if
            it had not stopped (its model replaces `model`). By default the model's own `start`.
        max_steps: iterations at most, counted from here.
        progress: called as progress(step, max_steps, elbo) every few steps.

    Ctrl-C between two chunks of steps ends the run with status `interrupted` and all that was inferred so far.

    Raises:
        ValueError: for data or a start that cannot be the model's, before any compilation.
    """
    algorithm = EM() if algorithm is None else algorithm
    if max_steps < 0:
        raise ValueError(f"max_steps must not be negative, got {max_steps}")
    arguments = prepare(model, data)
    if isinstance(start, Solution):
        model, start = start.model, start.posterior
    key_start, key_posterior = jax.random.split(jax.random.key(0) if key is None else key)
    if isinstance(start, Posterior):
        posterior = start
    else:
        chosen = model.start(key_start, *arguments) if start is None else start
        posterior = initial_posterior(model, arguments, key_posterior, {k: jnp.asarray(v) for k, v in chosen.items()})
    model, posterior = _strong(model), _strong(posterior)
    return _run(model, posterior, arguments, algorithm, max_steps, progress)


def prepare(model: Model, data: Any) -> tuple:
    """The program's arguments as arrays, checked to be finite, not empty and what the model takes.

    Raises:
        ValueError: otherwise, naming the argument.
    """
    arguments = data if isinstance(data, tuple) else (data,)
    arguments = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else x, arguments)
    for position, leaf in enumerate(jax.tree.leaves(arguments)):
        if eqx.is_array(leaf) and leaf.size == 0:
            raise ValueError(f"data: argument {position} is empty, its shape is {leaf.shape}")
        if eqx.is_inexact_array(leaf) and not bool(jnp.isfinite(leaf).all()):
            raise ValueError(f"data: argument {position} of shape {leaf.shape} holds infinite or nan values")
    model.validate(*arguments)
    return arguments


def _strong(tree: Any) -> Any:
    """Without weak types, which would cost a second compilation."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype) if eqx.is_array(x) else x, tree)


def _run(
    model: Model, posterior: Posterior, data: tuple, algorithm: EM, max_steps: int, progress: Progress | None
) -> Solution:
    bounds: list[np.ndarray] = []
    previous = jnp.asarray(-jnp.inf, _real_dtype(data))
    done, status = 0, Status.running
    observations = _observe(model, posterior, data)
    while status is Status.running:
        try:
            result = _chunk(algorithm, model, posterior, data, observations, previous, jnp.int32(max_steps - done))
            jax.block_until_ready(result)
            model, posterior, previous, trace, count, code = result
            status = Status(int(code))
            bounds.append(np.asarray(trace)[: int(count) + (status is not Status.running)])
            done += int(count)
            if progress is not None:
                progress(done, max_steps, float(previous))
        except KeyboardInterrupt:
            status = Status.interrupted
    elbo = np.concatenate(bounds) if bounds else np.zeros(0)
    return Solution(model, posterior, elbo, status, done)


def _real_dtype(data: tuple) -> jnp.dtype:
    leaves = [leaf for leaf in jax.tree.leaves(data) if eqx.is_inexact_array(leaf)]
    return jnp.finfo(jnp.result_type(*leaves)).dtype if leaves else jnp.zeros(()).dtype


@eqx.filter_jit
def _observe(model: Model, posterior: Posterior, data: tuple) -> Observations:
    return observe(model, posterior, data)


@eqx.filter_jit
def _chunk(
    algorithm: EM,
    model: Model,
    posterior: Posterior,
    data: tuple,
    observations: Observations,
    previous: Array,
    steps_left: Array,
) -> tuple[Model, Posterior, Array, Array, Array, Array]:
    """Up to `_CHUNK` steps, or to the end. The bound of the state that a step begins with is judged, so that it shares its
    work with the step; the step that follows the last judgement is discarded."""
    size = sum(leaf.size for leaf in jax.tree.leaves(data) if eqx.is_array(leaf))

    def go_on(carry):
        _, _, _, count, status, _ = carry
        return (count < _CHUNK) & (status == Status.running.value)

    def body(carry):
        arrays, previous, trace, count, _, _ = carry
        model, posterior = eqx.combine(arrays, static)
        bound = algorithm.elbo(model, posterior, data, observations).astype(previous.dtype)
        status = _judge(bound, previous, count == steps_left, algorithm.tolerance, size)
        stepped, _ = eqx.partition(algorithm.step(model, posterior, data, observations), eqx.is_array)
        running = status == Status.running.value
        arrays = jax.tree.map(lambda new, old: jnp.where(running, new, old), stepped, arrays)
        return arrays, bound, trace.at[count].set(bound), count + running.astype(count.dtype), status, running

    arrays, static = eqx.partition((model, posterior), eqx.is_array)
    zero = jnp.zeros_like(steps_left)
    trace = jnp.zeros(_CHUNK, previous.dtype)
    carry = (arrays, previous, trace, zero, zero, jnp.asarray(True))
    arrays, previous, trace, count, status, _ = jax.lax.while_loop(go_on, body, carry)
    model, posterior = eqx.combine(arrays, static)
    return model, posterior, previous, trace, count, status


def _judge(bound: Array, previous: Array, at_limit: Array, tolerance: float, size: int) -> Array:
    """The status after the bound of one state."""
    change = bound - previous
    scale = jnp.maximum(jnp.abs(bound), jnp.asarray(float(size), bound.dtype))
    rounding = float(jnp.finfo(bound.dtype).eps) ** 0.75 * scale
    status = jnp.where(at_limit, Status.max_steps.value, Status.running.value)
    status = jnp.where(jnp.abs(change) <= tolerance * jnp.abs(bound), Status.converged.value, status)
    status = jnp.where(change < -rounding, Status.bound_decreased.value, status)
    return jnp.where(jnp.isfinite(bound), status, Status.nonfinite.value).astype(jnp.int32)
