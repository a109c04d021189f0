"""What NumPyro asks of any distribution, asked of each complex one."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.context import relaxed_promotion
from vbss.distributions import (
    ComplexAngularCentralGaussian,
    ComplexInverseWishart,
    ComplexMultivariateNormal,
    ComplexNormal,
    ComplexWishart,
)
from vbss.hermitian import pack

SIZE, BATCH = 2, 4
density = jax.jit(lambda distribution, value: distribution.log_prob(value))
inside = jax.jit(lambda distribution, value: distribution.support(value))
draw = jax.jit(lambda distribution, key, shape: distribution.sample(key, shape), static_argnums=2)


@pytest.fixture(autouse=True)
def numpyro_promotion():
    with relaxed_promotion():
        yield


def complex_numbers(rng, *shape):
    return rng.standard_normal((*shape, 2)) @ [1, 1j]


def positive(rng, *batch):
    root = complex_numbers(rng, *batch, SIZE, SIZE + 2)
    return root @ root.conj().swapaxes(-1, -2) / SIZE


def packed(rng, *batch):
    return np.asarray(jax.jit(pack)(positive(rng, *batch)))


def degrees(rng, *batch):
    return SIZE + 1 + rng.random(batch)


class Case(NamedTuple):
    """A distribution, draws of valid arguments (convex sets), and a value outside of its support."""

    build: Callable
    arguments: tuple[Callable, ...]
    event_shape: tuple[int, ...]
    outside: np.ndarray


CASES = {
    "normal": Case(
        ComplexNormal, (complex_numbers, lambda rng, *batch: 0.5 + rng.random(batch)), (), np.array(1j * np.inf)
    ),
    "vector": Case(
        lambda loc, precision, **options: ComplexMultivariateNormal(loc, precision_matrix=precision, **options),
        (lambda rng, *batch: complex_numbers(rng, *batch, SIZE), positive),
        (SIZE,),
        np.array([0, np.nan], complex),
    ),
    "direction": Case(ComplexAngularCentralGaussian, (positive,), (SIZE,), np.array([1, 1j])),
    "Wishart": Case(ComplexWishart, (degrees, packed), (SIZE, SIZE), -np.eye(SIZE, dtype=complex)),
    "inverse Wishart": Case(ComplexInverseWishart, (degrees, packed), (SIZE, SIZE), np.array([[1, 1j], [1j, 1]])),
}
every_case = pytest.mark.parametrize("name", CASES)


@partial(jax.jit, static_argnums=0)
def built(name, *arguments):
    return CASES[name].build(*arguments, validate_args=True)


def arguments(case, *batch, seed=0):
    rng = np.random.default_rng(seed)
    return [argument(rng, *batch) for argument in case.arguments]


def broadcasting(case):
    """Arguments whose batches (BATCH,) and (3, 1) broadcast."""
    first, *rest = arguments(case, 3, BATCH)
    return [first[0] if rest else first, *(argument[:, :1] for argument in rest)]


@cache
def batched_draws(name):
    distribution = built(name, *broadcasting(CASES[name]))
    return distribution, draw(distribution, jr.key(0), (2,))


def in_single_precision(array):
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)


@every_case
def test_shapes_and_elements_of_a_batch(name):
    case = CASES[name]
    distribution, values = batched_draws(name)
    assert distribution.batch_shape == (3, BATCH) and distribution.event_shape == case.event_shape
    assert values.shape == (2, 3, BATCH, *case.event_shape) and values.dtype == complex
    assert inside(distribution, values).all()
    assert len(np.unique(np.asarray(values).reshape(2 * 3 * BATCH, -1)[:, 0])) == 2 * 3 * BATCH
    log_prob = density(distribution, values)
    assert log_prob.shape == (2, 3, BATCH) and log_prob.dtype == float
    first, *rest = broadcasting(case)
    for i, j in [(0, 0), (2, 1)]:
        one = built(name, first[j] if rest else first[i, j], *(argument[i, 0] for argument in rest))
        assert one.batch_shape == ()
        np.testing.assert_allclose(log_prob[:, i, j], density(one, values[:, i, j]), rtol=1e-10)


@every_case
def test_single_precision_is_kept(name):
    case = CASES[name]
    drawn = broadcasting(case)
    distribution = built(name, *map(in_single_precision, drawn))
    values = draw(distribution, jr.key(0), (2,))
    assert values.dtype == jnp.complex64 and inside(distribution, values).all()
    log_prob = density(distribution, values)
    assert log_prob.dtype == jnp.float32
    double = values.astype(complex)
    if name == "direction":
        double /= jnp.linalg.norm(double, axis=-1, keepdims=True)
    np.testing.assert_allclose(log_prob, density(built(name, *drawn), double), rtol=1e-3, atol=1e-3)


@every_case
def test_expand_mask_and_to_event(name):
    case = CASES[name]
    distribution = built(name, *arguments(case))
    expanded = distribution.expand((BATCH,))
    values = draw(expanded, jr.key(0), ())
    assert values.shape == (BATCH, *case.event_shape) and not np.allclose(values[0], values[1])
    log_prob = density(distribution, values)
    mask = np.arange(BATCH) % 2 == 0
    joint = expanded.mask(mask).to_event(1)
    assert joint.batch_shape == () and joint.event_shape == (BATCH, *case.event_shape)
    np.testing.assert_allclose(density(joint, values), log_prob[mask].sum(), rtol=1e-12)


@every_case
def test_vmap_and_pytree(name):
    drawn, values = arguments(CASES[name], BATCH), batched_draws(name)[1][0, 0]
    distribution = built(name, *drawn)
    mapped = jax.jit(jax.vmap(lambda value, *arguments: CASES[name].build(*arguments).log_prob(value)))
    np.testing.assert_allclose(mapped(values, *drawn), density(distribution, values), rtol=1e-10)
    leaves, structure = jax.tree.flatten(distribution)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(distribution) and again.shape((2,)) == distribution.shape((2,))
    assert all(leaf is other for leaf, other in zip(leaves, jax.tree.leaves(again), strict=True))


@every_case
def test_the_gradient_is_the_slope(name):
    # The valid arguments are convex: towards another draw of them no step leaves them.
    case = CASES[name]
    start, end = arguments(case, seed=0), arguments(case, seed=1)
    value, other = batched_draws(name)[1][:, 0, 0]

    def log_prob(arguments_and_value):
        *arguments, value = arguments_and_value
        return case.build(*arguments, validate_args=False).log_prob(value)

    point, direction = [*start, value], [b - a for a, b in zip([*start, value], [*end, other], strict=True)]
    step = 1e-6
    line = [[a + t * b for a, b in zip(point, direction, strict=True)] for t in (-step, 0, step)]
    gradient = jax.jit(jax.value_and_grad(log_prob))
    (before, _), (_, middle), (after, _) = map(gradient, line)
    directional = sum(np.real(np.sum(a * b)) for a, b in zip(middle, direction, strict=True))
    np.testing.assert_allclose(directional, (after - before) / (2 * step), rtol=1e-6)


@every_case
def test_what_is_outside_of_the_support_is_refused(name):
    distribution = built(name, *arguments(CASES[name]))
    assert not inside(distribution, CASES[name].outside)
    assert density(distribution, CASES[name].outside) == -jnp.inf


@pytest.mark.parametrize("name", ["normal", "vector", "direction", "Wishart"])
def test_strict_promotion(name):
    drawn = arguments(CASES[name], BATCH)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        distribution = built(name, *drawn)
        values = draw(distribution, jr.key(0), (2,))
        assert density(distribution, values).shape == (2, BATCH)
