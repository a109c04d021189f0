"""What holds of a sound program beside its updates: NumPyro agrees with it, and JAX may transform its iteration."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float
from numpyro.infer.util import log_density

from vbss.check.report import Row
from vbss.compilation import compiled
from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.expectation import Observations, expected_log_joint
from vbss.inference.em import EM
from vbss.posteriors import Posterior
from vbss.probes import probe
from vbss.program import Model
from vbss.storage import load, save
from vbss.storage.layout import classes_in

_NUM_DRAWS = 2048
_DRAWS_AT_ONCE = 256  # of the log density, whose arrays have the size of the data
_STANDARD_ERRORS = 4.5  # once in 150 000 checks of a correct program
_NUM_DEVICES = 2
_LONGEST_NOTE = 600  # characters: some of JAX's messages fill pages

Bounds = Float[np.ndarray, "..."]


class State(NamedTuple):
    """Where an inference stands, and the data."""

    model: Model
    posterior: Posterior
    data: tuple


class _Skipped(Exception):
    """Why a row cannot be tried here."""


def check_contract(algorithm: EM, state: State, other: State, key: Array, tolerance: float) -> tuple[Row, ...]:
    """All rows of the contract that are not about a block.

    Args:
        state, other: two starts with arrays of the same shapes.
        tolerance: for bounds that differ by rounding alone, relative to 1 + |bound|.
    """
    state, other = _strong(state), _strong(other)
    key_probe, key_draws = jax.random.split(key)
    iteration = _Iteration(algorithm)
    later, bounds = iteration.twice(state)
    num_traces = iteration.num_traces

    def refused() -> float:
        blocks = algorithm.schedule(state.model, state.posterior)
        probe(*state, key_probe, blocks)
        return 0.0

    def standard_errors() -> float:
        observations = algorithm.constants(*later)
        return float(_standard_errors(later, observations, key_draws))

    def under_vmap() -> float:
        one_by_one = np.stack([bounds, iteration.twice(other)[1]], -1)
        return _difference(iteration.twice_together(state, other), one_by_one)

    def in_single_precision() -> float:
        if bounds.dtype != np.float64:
            raise _Skipped("needs a model and data in double precision (jax_enable_x64).")
        with jax.enable_x64(False):
            return _difference(iteration.twice(_from_host(state))[1], bounds)

    def on_two_devices() -> float:
        there, first = iteration.once(_spread(state))
        here = _from_host(there)._replace(data=state.data)
        return _difference(np.stack([first, iteration.once(here)[1]]), bounds)

    def after_loading() -> float:
        model, posterior = _loaded((later.model, later.posterior))
        bound = iteration.once(State(model, posterior, state.data))[1]
        return _difference(np.stack([bound]), bounds[1:])

    single = float(jnp.finfo(jnp.float32).eps) ** 0.5
    return (
        _row("probes", refused, 0.0),
        _row("E_q[log p] = Monte Carlo", standard_errors, _STANDARD_ERRORS),
        _row("one trace", lambda: float(num_traces), 1.0),
        _row("vmap = loop", under_vmap, tolerance),
        _row("float32 = float64", in_single_precision, single),
        _row("two devices = one", on_two_devices, tolerance),
        _row("saved and loaded", after_loading, tolerance),
    )


def _row(name: str, measure: Callable[[], float], tolerance: float) -> Row:
    try:
        return Row(name, measure(), tolerance)
    except _Skipped as reason:
        return Row(name, None, tolerance, str(reason), skipped=True)
    # Whatever a program does when it is transformed, the other rows still have something to say.
    except Exception as error:
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return Row(name, None, tolerance, textwrap.shorten(message, _LONGEST_NOTE, placeholder=" ..."))


def _difference(found: Bounds, expected: Bounds) -> float:
    """The largest difference of bounds, relative to 1 + |bound|; nan where one is not finite."""
    return float(np.max(np.abs(found - expected) / (1 + np.abs(expected))))


class _Iteration:
    """The compiled step of an algorithm, which counts how often it is traced."""

    def __init__(self, algorithm: EM):
        def step(state: State, observations: Observations) -> tuple[State, Array]:
            self.num_traces += 1
            model, posterior, bound = algorithm.step(*state, observations)
            return State(model, posterior, state.data), bound

        self.num_traces = 0
        self._algorithm = algorithm
        self._step = compiled(step)
        self._step_together = compiled(eqx.filter_vmap(self._step))

    def once(self, state: State) -> tuple[State, Bounds]:
        """The state after a step, and the bound before it."""
        later, bound = self._step(state, self._algorithm.constants(*state))
        return later, np.asarray(bound)

    def twice(self, state: State) -> tuple[State, Bounds]:
        """The state after a step, and the bounds before it and after it, shape (2,)."""
        later, first = self.once(state)
        return later, np.stack([first, self.once(later)[1]])

    def twice_together(self, *states: State) -> Bounds:
        """The bounds of several states under one vmap, shape (2, states)."""
        state, observations = _stacked([(state, self._algorithm.constants(*state)) for state in states])
        state, first = self._step_together(state, observations)
        _, second = self._step_together(state, observations)
        return np.stack([first, second])


def _strong(state: State) -> State:
    """Without weak types, as `fit` begins."""

    def strong(leaf: Any) -> Any:
        return jax.lax.convert_element_type(leaf, leaf.dtype) if eqx.is_array(leaf) and leaf.weak_type else leaf

    return jax.tree.map(strong, state)


@compiled
def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *trees)


@compiled
def _standard_errors(state: State, observations: Observations, key: Array) -> Float[Array, ""]:
    """How far the engine's E_q[log p] is from the mean of NumPyro's log density over draws from q.

    In standard errors of the mean, widened by rounding for a density that does not vary.
    """
    model, posterior, data = state

    def drawn(key: Array) -> Array:
        values = {name: draws[0] for name, draws in posterior.sample(key, 1).items()}
        with relaxed_promotion():
            return jnp.asarray(log_density(model, data, {}, {**posterior.points, **values})[0])

    expected = expected_log_joint(model, posterior, data, observations)
    log_densities = jax.lax.map(drawn, jax.random.split(key, _NUM_DRAWS), batch_size=_DRAWS_AT_ONCE)
    rounding = jnp.finfo(expected.dtype).eps ** 0.75 * (1 + jnp.abs(expected))
    return jnp.abs(log_densities.mean() - expected) / (log_densities.std() / _NUM_DRAWS**0.5 + rounding)


def _from_host(tree: Any) -> Any:
    """Arrays anew: on the default device, in the precision that JAX is set to."""

    def anew(leaf: Any) -> Any:
        is_number = eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jnp.asarray(np.asarray(leaf)) if is_number else leaf

    return jax.tree.map(anew, tree)


def _spread(state: State) -> State:
    """The data shared out over two devices, each argument along its first axis of even size."""
    devices = jax.local_devices()[:_NUM_DEVICES]
    if len(devices) < _NUM_DEVICES:
        raise _Skipped("there is only one device.")
    mesh = Mesh(np.asarray(devices), ("devices",))

    def shared(leaf: Array) -> PartitionSpec:
        axis = next((axis for axis, size in enumerate(leaf.shape) if size and size % _NUM_DEVICES == 0), None)
        return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, "devices")

    if all(shared(leaf) == PartitionSpec() for leaf in jax.tree.leaves(state.data)):
        raise _Skipped("no argument of the program has an axis of even size.")
    data = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, shared(leaf))), state.data)
    everywhere = NamedSharding(mesh, PartitionSpec())
    copied = jax.tree.map(lambda leaf: jax.device_put(leaf, everywhere) if eqx.is_array(leaf) else leaf, state)
    return copied._replace(data=data)


def _loaded(tree: Any) -> Any:
    """A tree after a round trip through a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tree.vbss"
        save(path, tree)
        return load(path, *classes_in(tree))
