"""`Expanded`: any NumPyro distribution as the density of a `Gated` site, by its log density under every state."""

from collections.abc import Callable
from math import ceil, prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.context import relaxed_promotion
from vbss.densities.base import Density
from vbss.densities.labelled import Labelled, contract, summed_product
from vbss.distributions.discrete import LOG_ZERO
from vbss.errors import InputError

MAX_BYTES = 256 * 2**20


class Expanded(Density):
    """y ~ cls(**parameters), for any NumPyro distribution: of counts, categories, angles, heavy tails, vectors.

        vbss.Gated("n", {"nk": z}, vbss.Expanded(dist.Poisson, rate=("k", rates)))

    The log density is evaluated for every element of the plates under every state that the parameters distinguish, and
    the gates weigh this array. `vbss.Normal` and its like do without the array: prefer them where they apply.

    Args:
        cls: a class of distributions, or a function that returns one (`dist.Bernoulli`, `dist.TruncatedNormal`).
        max_bytes: memory that one such array may take, in bytes. The total of a larger one is computed in pieces of the
            longest plate, and so is its gradient, which has several such arrays at once. `vmap` multiplies what is
            taken.
        parameters: name=(axes, array), the axes of the event last, as many as the distribution wants:
            `loc=("ki", loc), covariance_matrix=("kij", covariance)`.

    Where a mask leaves an observation out, it may have any value at which the log density has finite derivatives.

    How a parameter is learnt follows from where the log density is read: the rate of a Poisson distribution is a
    `vbss.Precision()`, and the log-probabilities of categories are a `vbss.Simplex()` if they enter as
    `dist.CategoricalProbs, probs=("kc", jnp.exp(log_probs))`, which does not normalise them anew.

    Raises:
        InputError: if a parameter is not a pair, is none of the distribution's, or has fewer axes than its event.
    """

    cls: Callable[..., dist.Distribution] = eqx.field(static=True)
    arguments: dict[str, Labelled]
    max_bytes: int = eqx.field(static=True)
    _event_ranks: tuple[tuple[str, int], ...] = eqx.field(static=True)
    _event_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        cls: Callable[..., dist.Distribution],
        /,
        *,
        max_bytes: int = MAX_BYTES,
        **parameters: Any,
    ):
        for name, parameter in parameters.items():
            if not isinstance(parameter, tuple) or len(parameter) != 2 or not isinstance(parameter[0], str):
                raise InputError(f"Expanded: {name} must be a pair (axes, array), got {parameter!r}")
        self.cls, self.max_bytes = cls, max_bytes
        self.arguments = {name: Labelled(*parameter) for name, parameter in parameters.items()}
        self._event_ranks = tuple((name, self._event_rank(name)) for name in parameters)
        self._event_shape = self._shape_of_an_event()

    @property
    def _kind(self) -> type[dist.Distribution]:
        """The class itself: a function chooses it by the names of its arguments."""
        if isinstance(self.cls, type):
            return self.cls
        ones = {name: jnp.ones((1,) * a.array.ndim, a.array.dtype) for name, a in self.arguments.items()}
        with relaxed_promotion():
            return type(self.cls(**ones))

    def _event_rank(self, name: str) -> int:
        constraints = self._kind.arg_constraints
        # A function may take what its class does not: the parameters of a truncated distribution's base, all scalar.
        if name not in constraints and isinstance(self.cls, type):
            raise InputError(f"Expanded: {self.cls.__name__} has no parameter {name!r}; it has {sorted(constraints)}")
        rank = constraints[name].event_dim if name in constraints else 0
        axes = self.arguments[name].axes
        if len(axes) < rank:
            raise InputError(f"Expanded: {name} must have {rank} event axes, its last, but its axes are {axes!r}")
        return rank

    def _shape_of_an_event(self) -> tuple[int, ...]:
        one = {
            name: jax.ShapeDtypeStruct(argument.array.shape[argument.array.ndim - rank :], argument.array.dtype)
            for name, (argument, rank) in self._named()
        }
        with relaxed_promotion():
            return jax.eval_shape(lambda parameters: jnp.zeros(self.cls(**parameters).event_shape), one).shape

    def _named(self) -> list[tuple[str, tuple[Labelled, int]]]:
        return [(name, (self.arguments[name], rank)) for name, rank in self._event_ranks]

    @property
    def event_shape(self):
        return self._event_shape

    @property
    def support(self):
        return self._kind.support

    def parameters(self):
        return [parameter for _, parameter in self._named()]

    def statistics(self, plates, value):
        return {"value": value}

    def total(self, statistics, gates, mask, plate_sizes):
        plates, value, masks = "".join(plate_sizes), statistics["value"], [] if mask is None else [mask]
        # The value has every plate, even one that gates and parameters leave at size 1.
        sizes = dict(zip(plates, value.shape, strict=False))
        num_pieces = ceil(self._num_bytes(sizes) / self.max_bytes)
        if num_pieces <= 1:
            return self._whole_total(plates, value, gates, masks)
        return self._total_in_pieces(sizes, value, gates, masks, num_pieces)

    def elementwise(self, statistics, gates, plates):
        return contract([*gates, self._every_state(plates, statistics["value"])], "...", plates)

    def sample(self, key, pick, shape):
        # Whole numbers stay whole.
        picked = {name: pick(a, rank).astype(a.array.dtype) for name, (a, rank) in self._named()}
        with relaxed_promotion():
            fn = self.cls(**picked)
            return jnp.asarray(fn.sample(key, shape[: len(shape) - len(fn.batch_shape)]))

    @property
    def _dtype(self) -> jnp.dtype:
        """The log density's: that of the parameters, or of their real part."""
        inexact = [a.array for a in self.arguments.values() if jnp.issubdtype(a.array.dtype, jnp.inexact)]
        with relaxed_promotion():
            return jnp.finfo(jnp.result_type(*inexact or [float])).dtype

    def _num_bytes(self, plate_sizes: dict[str, int]) -> int:
        """The size of the log densities, or of what they are made of where observations or parameters are arrays."""
        sizes = dict(plate_sizes)
        width = prod(self.event_shape)
        for argument, rank in self.parameters():
            shape = argument.array.shape[argument.array.ndim - len(argument.axes) :]
            for letter, size in zip(_batch_axes(argument, rank), shape, strict=False):
                sizes[letter] = max(size, sizes.get(letter, 1))
            width = max(width, prod(shape[len(shape) - rank :]))
        return prod(sizes.values()) * width * self._dtype.itemsize

    def _every_state(self, plates: str, value: Array) -> Labelled:
        """The log density of every element under every state, axes (*states, *plates): a long plate stays last."""
        letters = dict.fromkeys("".join(_batch_axes(*parameter) for parameter in self.parameters()))
        states = "".join(letter for letter in letters if letter not in plates)
        aligned = {name: _aligned(*parameter, states + plates) for name, parameter in self._named()}
        elements = len(plates) + len(self.event_shape)
        value = jnp.expand_dims(value, [-elements - 1 - state for state in range(len(states))])
        with relaxed_promotion():
            log_prob = jnp.asarray(self.cls(**aligned).log_prob(value))
        log_prob = log_prob.astype(self._dtype)
        return Labelled(states + plates, jnp.where(log_prob < LOG_ZERO, LOG_ZERO, log_prob))

    def _whole_total(self, plates: str, value: Array, gates: list[Labelled], masks: list[Labelled]) -> Array:
        log_prob = self._every_state(plates, value)
        array = log_prob.array
        for mask in masks:
            array = jnp.where(_aligned(mask, 0, log_prob.axes), array, 0)
        return summed_product([*gates, Labelled(log_prob.axes, array)])

    def _total_in_pieces(
        self,
        plate_sizes: dict[str, int],
        value: Array,
        gates: list[Labelled],
        masks: list[Labelled],
        num_pieces: int,
    ) -> Array:
        plates = "".join(plate_sizes)
        letter = max(plates, key=lambda plate: plate_sizes[plate])
        size = plate_sizes[letter]
        length = ceil(size / num_pieces)
        num_pieces = ceil(size / length)

        def carries(labelled: Labelled) -> bool:
            return letter in labelled.axes and labelled.array.shape[labelled.axes.index(letter)] > 1

        def split(labelled: Labelled) -> Labelled:
            axis = labelled.axes.index(letter) - len(labelled.axes)
            return Labelled(labelled.axes, _pieces(labelled.array, axis, num_pieces, length))

        moving, still = eqx.partition((self, gates, masks), carries, is_leaf=_is_labelled)
        pieces = jax.tree.map(split, moving, is_leaf=_is_labelled)
        values = _pieces(value, plates.index(letter) - len(plates) - len(self.event_shape), num_pieces, length)
        is_counted = (jnp.arange(num_pieces * length) < size).reshape(num_pieces, length)

        @jax.checkpoint  # the backward pass makes each piece anew, and keeps none
        def piece_total(piece):
            moving, value, is_counted = piece
            density, gates, masks = eqx.combine(moving, still, is_leaf=_is_labelled)
            return density._whole_total(plates, value, gates, [*masks, Labelled(letter, is_counted)])

        return jax.lax.map(piece_total, (pieces, values, is_counted)).sum()


def _is_labelled(node: object) -> bool:
    return isinstance(node, Labelled)


def _batch_axes(labelled: Labelled, event_rank: int) -> str:
    return labelled.axes[: len(labelled.axes) - event_rank]


def _aligned(labelled: Labelled, event_rank: int, axes: str) -> Array:
    """The array with its batch axes in the order of `axes`, of size 1 where it has none, and its event axes last."""
    batch = _batch_axes(labelled, event_rank)
    leading = labelled.array.ndim - len(labelled.axes)
    order = [leading + batch.index(letter) for letter in axes if letter in batch]
    events = range(leading + len(batch), labelled.array.ndim)
    ordered = labelled.array.transpose(*range(leading), *order, *events)
    return jnp.expand_dims(ordered, [axes.index(a) - len(axes) - event_rank for a in axes if a not in batch])


def _pieces(array: Array, axis: int, num_pieces: int, length: int) -> Array:
    """The array cut along a negative axis into pieces, stacked in front; the last is filled with the last entry."""
    axis += array.ndim
    missing = num_pieces * length - array.shape[axis]
    padding = [(0, missing if dim == axis else 0) for dim in range(array.ndim)]
    padded = jnp.pad(array, padding, mode="edge") if missing else array
    return jnp.moveaxis(padded.reshape(*array.shape[:axis], num_pieces, length, *array.shape[axis + 1 :]), axis, 0)
