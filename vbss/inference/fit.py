"""The one loop: compiled once per shape, run in chunks of steps."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbss.errors import InputError, whole_number
from vbss.expectation import Observations, observe
from vbss.inference.em import EM
from vbss.inference.solution import Solution, Status
from vbss.posterior import Posterior, default_posterior, initial_posterior
from vbss.program import Model

Progress = Callable[[int, int, float], Any]
_FIRST_CHUNK = 2  # steps before the first look at progress and interruption
_LONGEST_CHUNK = 50
_SECONDS = 0.5  # between two looks


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
        start: where to begin: {site: probabilities or value}, a `Posterior`, or a `Solution`, which is continued
            (its model replaces `model`) through the same states as if it had not stopped. By default the model's own
            `start`.
        max_steps: iterations at most, counted from here.
        progress: called as progress(step, max_steps, elbo) about twice a second.

    Ctrl-C ends the run with status `interrupted` and all that was inferred until the last chunk of steps.

    Raises:
        ValueError: for data or a start that cannot be the model's, before any compilation.
    """
    algorithm = EM() if algorithm is None else algorithm
    if not isinstance(algorithm, EM):
        raise InputError(
            f"algorithm must be a vbss.EM, got {type(algorithm).__name__}; several data of a program stand in a tuple."
        )
    max_steps = whole_number("max_steps", max_steps, 0)
    arguments = prepare(model, data)
    if isinstance(start, Solution):
        model, start = start.model, start.posterior
    key_start, key_posterior = jax.random.split(jax.random.key(0) if key is None else key)
    if isinstance(start, Posterior):
        _check_layout(start, eqx.filter_eval_shape(default_posterior, model, arguments, key_posterior))
        posterior = start
    else:
        chosen = model.start(key_start, *arguments) if start is None else start
        posterior = initial_posterior(model, arguments, key_posterior, {k: jnp.asarray(v) for k, v in chosen.items()})
    model, posterior = _strong(model), _strong(posterior)
    return _run(model, posterior, arguments, algorithm, max_steps, progress)


def _check_layout(start: Posterior, expected: Posterior) -> None:
    """Raise ValueError where a posterior to start from is not laid out as the program and its data demand."""
    if start.names() != expected.names():
        raise ValueError(f"start: the posterior has {sorted(start.names())}, the program {sorted(expected.names())}")
    for name in start.order:
        own, wanted = (
            [leaf.shape for leaf in jax.tree.leaves(p.factors.get(name, p.points.get(name)))] for p in (start, expected)
        )
        if own != wanted:
            raise ValueError(f"start: {name!r} has arrays of shapes {own}, but the data ask for {wanted}")


def prepare(model: Model, data: Any) -> tuple:
    """The program's arguments as arrays, checked to be finite, not empty and what the model takes.

    Raises:
        ValueError: otherwise, naming the argument.
    """
    arguments = tuple(jax.tree.map(_array, argument) for argument in (data if isinstance(data, tuple) else (data,)))
    leaves = jax.tree.leaves(arguments)
    is_finite = np.asarray(_are_finite(leaves))
    for position, leaf in enumerate(leaves):
        if leaf.size == 0:
            raise InputError(f"data: argument {position} is empty, its shape is {leaf.shape}")
        if not is_finite[position]:
            raise InputError(f"data: argument {position} of shape {leaf.shape} holds infinite or nan values")
    for name in model.parameter_kinds():
        value = getattr(model, name)
        if not eqx.is_inexact_array(value) or jnp.iscomplexobj(value) or bool(jnp.isnan(value).any()):
            raise InputError(f"{type(model).__name__}.{name} must be an array of real floating numbers without nan")
    model.validate(*arguments)
    return arguments


@jax.jit
def _are_finite(leaves: list[Array]) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() if eqx.is_inexact_array(leaf) else jnp.array(True) for leaf in leaves])


def _array(value: Any) -> Array:
    if not eqx.is_array_like(value):
        raise InputError(f"data: must hold arrays of numbers, got {type(value).__name__}")
    return jnp.asarray(value)


def _strong(tree: Any) -> Any:
    """Without weak types, which would cost a second compilation."""

    def strong(leaf: Any) -> Any:
        return jax.lax.convert_element_type(leaf, leaf.dtype) if eqx.is_array(leaf) and leaf.weak_type else leaf

    return jax.tree.map(strong, tree)


def _run(
    model: Model, posterior: Posterior, data: tuple, algorithm: EM, max_steps: int, progress: Progress | None
) -> Solution:
    bounds: list[np.ndarray] = []
    chunk = _FIRST_CHUNK
    previous = jnp.asarray(-jnp.inf, _real_dtype(data))
    done, status = 0, Status.running
    observations = _observe(model, posterior, data)
    try:
        while status is Status.running and done < max_steps:
            started = perf_counter()
            num_steps = jnp.int32(min(chunk, max_steps - done))
            result = _chunk(algorithm, model, posterior, data, observations, previous, num_steps)
            jax.block_until_ready(result)
            model, posterior, previous, trace, count, code = result
            bounds.append(np.asarray(trace)[: int(count)])
            done, status = done + int(count), Status(int(code))
            seconds_per_step = (perf_counter() - started) / int(count)
            chunk = int(np.clip(_SECONDS / seconds_per_step, 1, _LONGEST_CHUNK))
            if progress is not None:
                progress(done, max_steps, float(previous))
        # The bound of the final state: one more step gives it without more to compile, and is itself not used.
        *_, trace, _, code = _chunk(algorithm, model, posterior, data, observations, previous, jnp.int32(1))
        bounds.append(np.asarray(trace)[:1])
        last = Status(int(code))
        if status is Status.running:
            status = Status.max_steps if last is Status.running else last
        elif last in (Status.nonfinite, Status.bound_decreased) and status is not Status.nonfinite:
            status = last
    except KeyboardInterrupt:
        status = Status.interrupted if status is Status.running else status
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
    num_steps: Array,
) -> tuple[Model, Posterior, Array, Array, Array, Array]:
    """`num_steps` steps, or fewer when the inference ends.

    A step begins with the bound of the state that it finds, which shares its passes over the data with the updates.
    """
    size = _size(data)

    def go_on(carry):
        _, _, _, count, status = carry
        return (count < num_steps) & (status == Status.running.value)

    def body(carry):
        arrays, previous, trace, count, _ = carry
        model, posterior = eqx.combine(arrays, static)
        bound = algorithm.elbo(model, posterior, data, observations).astype(previous.dtype)
        status = _judge(bound, previous, algorithm.tolerance, size)
        stepped = eqx.filter(algorithm.step(model, posterior, data, observations), eqx.is_array)
        return stepped, bound, trace.at[count].set(bound), count + 1, status

    arrays, static = eqx.partition((model, posterior), eqx.is_array)
    carry = (arrays, previous, jnp.zeros(_LONGEST_CHUNK, previous.dtype), jnp.int32(0), jnp.int32(Status.running.value))
    arrays, previous, trace, count, status = jax.lax.while_loop(go_on, body, carry)
    model, posterior = eqx.combine(arrays, static)
    return model, posterior, previous, trace, count, status


def _size(data: tuple) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(data) if eqx.is_inexact_array(leaf))


def _judge(bound: Array, previous: Array, tolerance: float, size: int) -> Array:
    """The status after a bound that follows the previous one; rounding is allowed eps^(3/4) of the bound's scale."""
    change = bound - previous
    scale = jnp.maximum(jnp.abs(bound), jnp.asarray(float(size), bound.dtype))
    rounding = float(jnp.finfo(bound.dtype).eps) ** 0.75 * scale
    converged = jnp.abs(change) < tolerance * scale
    status = jnp.where(converged, Status.converged.value, Status.running.value)
    status = jnp.where(change < -rounding, Status.bound_decreased.value, status)
    return jnp.where(jnp.isfinite(bound), status, Status.nonfinite.value).astype(jnp.int32)
