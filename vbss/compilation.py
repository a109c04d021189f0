"""`compiled`: `jax.jit` for programs that factorise batches of small matrices.

LAPACK takes the matrices of a batch one by one; XLA's CPU runtime (jaxlib 0.10) spreads them over threads that may wait
for each other for ever. Batches are therefore taken as arithmetic over the whole batch (`vbss.triangular`), wherever a
program, NumPyro's distributions and the derivatives of both ask for them.
"""

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun, jaxprs_in_params
from jax.extend.core.primitives import (
    cholesky_p,
    cond_p,
    custom_jvp_call_p,
    jit_p,
    scan_p,
    triangular_solve_p,
    while_p,
)
from jax.typing import ArrayLike
from jaxtyping import Array

from vbss import triangular

_LARGEST_SIZE = 64  # of larger matrices LAPACK is many times faster


def compiled(function: Callable) -> Callable:
    """`equinox.filter_jit` of a function, without LAPACK on batches of matrices.

    Derivatives are to be taken inside the function: rules of `jax.custom_jvp` around a factorisation do not survive.
    """
    return eqx.filter_jit(wraps(function)(batches_without_lapack(function)))


def batches_without_lapack(function: Callable) -> Callable:
    """What `compiled` compiles."""

    def rewritten(*args: Any, **kwargs: Any) -> Any:
        closed, shapes, static = eqx.filter_make_jaxpr(function)(*args, **kwargs)
        leaves = jax.tree.leaves(eqx.filter((args, kwargs), eqx.is_array))
        results = _evaluate(closed, *leaves) if _factorises_batches(closed.jaxpr) else jaxpr_as_fun(closed)(*leaves)
        results = [  # constants need not be arrays
            result if eqx.is_array(result) else jnp.asarray(result, shape.dtype)
            for result, shape in zip(results, jax.tree.leaves(shapes), strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), results), static)

    return rewritten


def _evaluate(closed: ClosedJaxpr, *arguments: ArrayLike) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *arguments], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [value(variable) for variable in equation.invars]
        rule = _RULES[equation.primitive] if _is_rewritten(equation) else _as_it_is
        with equation.ctx.manager:
            results = rule(equation, *inputs)
        values.update(zip(equation.outvars, results, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _factorises_batches(jaxpr: Jaxpr) -> bool:
    return any(_is_rewritten(equation) for equation in jaxpr.eqns)


def _is_rewritten(equation: JaxprEqn) -> bool:
    if equation.primitive not in _RULES:
        return False
    if equation.primitive not in (cholesky_p, triangular_solve_p):
        return any(_factorises_batches(inner) for inner in jaxprs_in_params(equation.params))
    matrix, right = equation.invars[0].aval, equation.invars[-1].aval
    assert isinstance(matrix, ShapedArray) and isinstance(right, ShapedArray)
    *batch, _, size = matrix.shape
    is_unrolled = size <= triangular.UNROLLED_SIZE
    is_small = is_unrolled or (size <= _LARGEST_SIZE and jax.default_backend() == "cpu")
    is_plain = size > 0 and not equation.params.get("unit_diagonal")
    # One matrix and many right-hand sides are spread over threads as well.
    return is_small and is_plain and (prod(batch) > 1 or (is_unrolled and right.size > matrix.size))


def _as_it_is(equation: JaxprEqn, *inputs: ArrayLike) -> list[Any]:
    results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def _cholesky(equation: JaxprEqn, matrix: Array) -> list[Any]:
    return [triangular.batched_cholesky(matrix)]


def _triangular_solve(equation: JaxprEqn, factor: Array, right: Array) -> list[Any]:
    parameters = equation.params
    is_transposed = parameters["transpose_a"]
    if not parameters["left_side"]:  # x A = b is A' x' = b'
        right, is_transposed = jnp.swapaxes(right, -1, -2), not is_transposed
    if parameters["conjugate_a"]:
        factor = factor.conj()
    if not parameters["lower"]:
        factor, is_transposed = jnp.swapaxes(factor, -1, -2), not is_transposed
    solve = triangular.batched_solve_upper if is_transposed else triangular.batched_solve_lower
    solved = solve(factor, right)
    return [solved if parameters["left_side"] else jnp.swapaxes(solved, -1, -2)]


def _call(equation: JaxprEqn, *inputs: ArrayLike) -> list[Any]:
    return _evaluate(equation.params.get("jaxpr") or equation.params["call_jaxpr"], *inputs)


def _scan(equation: JaxprEqn, *inputs: ArrayLike) -> list[Any]:
    parameters = equation.params
    num_constants, num_carried = parameters["num_consts"], parameters["num_carry"]
    constants, inputs = inputs[:num_constants], inputs[num_constants:]

    def step(carry: list[Any], x: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(parameters["jaxpr"], *constants, *carry, *x)
        return results[:num_carried], results[num_carried:]

    carry, results = jax.lax.scan(
        step,
        list(inputs[:num_carried]),
        list(inputs[num_carried:]),
        length=parameters["length"],
        reverse=parameters["reverse"],
        unroll=parameters["unroll"],
    )
    return [*carry, *results]


def _while(equation: JaxprEqn, *inputs: ArrayLike) -> list[Any]:
    parameters = equation.params
    num_condition, num_body = parameters["cond_nconsts"], parameters["body_nconsts"]
    of_condition, rest = inputs[:num_condition], inputs[num_condition:]
    of_body, carry = rest[:num_body], rest[num_body:]

    def goes_on(carry: list[Any]) -> Array:
        return jnp.asarray(_evaluate(parameters["cond_jaxpr"], *of_condition, *carry)[0])

    def body(carry: list[Any]) -> list[Any]:
        later = _evaluate(parameters["body_jaxpr"], *of_body, *carry)
        is_on = goes_on(carry)  # of a loop under `vmap`, one for each of the leading axes
        if is_on.ndim == 0:
            return later
        return [
            jnp.where(is_on.reshape(*is_on.shape, *(1,) * (new.ndim - is_on.ndim)), new, old)
            for new, old in zip(later, carry, strict=True)
        ]

    return jax.lax.while_loop(lambda carry: goes_on(carry).any(), body, list(carry))


def _cond(equation: JaxprEqn, index: ArrayLike, *inputs: ArrayLike) -> list[Any]:
    branches = [lambda *x, branch=branch: _evaluate(branch, *x) for branch in equation.params["branches"]]
    return jax.lax.switch(index, branches, *inputs)


_RULES = {
    cholesky_p: _cholesky,
    triangular_solve_p: _triangular_solve,
    jit_p: _call,
    custom_jvp_call_p: _call,
    scan_p: _scan,
    while_p: _while,
    cond_p: _cond,
}
