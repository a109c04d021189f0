"""When an inference ends: rules for exact bounds and for noisy ones."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.errors import InputError
from vbss.inference.solution import Status


class StoppingRule(eqx.Module):
    """Judges the trace of bounds, inside the compiled loop."""

    @abstractmethod
    def begin(self, dtype: jnp.dtype) -> Any:
        """The rule's memory before the first bound."""

    def resumed(self, memory: Any, dtype: jnp.dtype) -> Any:
        """The rule's memory when a solution is continued, perhaps with other data."""
        return self.begin(dtype)

    @abstractmethod
    def judge(self, bound: Float[Array, ""], memory: Any, size: int) -> tuple[Array, Any]:
        """The status (as the value of a `Status`) after one more bound, and the memory with it.

        Args:
            size: number of data; a change is small or large in relation to it or to the bound, whichever is larger.
        """


def _scale(bound: Array, size: int) -> Array:
    return jnp.maximum(jnp.abs(bound), jnp.asarray(float(size), bound.dtype))


def _if_finite(status: Array, bound: Array) -> Array:
    return jnp.where(jnp.isfinite(bound), status, Status.nonfinite.value).astype(jnp.int32)


class Monotone(StoppingRule):
    """For bounds that never fall: ends when one changes by less than `tolerance` of its scale, or falls.

    Rounding is allowed eps^(3/4) of the bound's scale.
    """

    tolerance: float = eqx.field(static=True, default=1e-6)

    def begin(self, dtype):
        return jnp.asarray(-jnp.inf, dtype)

    def judge(self, bound, memory, size):
        change, scale = bound - memory, _scale(bound, size)
        rounding = float(jnp.finfo(bound.dtype).eps) ** 0.75 * scale
        converged = jnp.abs(change) < self.tolerance * scale
        status = jnp.where(converged, Status.converged.value, Status.running.value)
        status = jnp.where(change < -rounding, Status.bound_decreased.value, status)
        return _if_finite(status, bound), bound


class Plateau(StoppingRule):
    """For noisy bounds: ends when it is sure that the bound gains no more than `tolerance` of its scale.

    The mean over the later half of all steps is compared with that over the quarter before, after 2, 4, 8, ... windows;
    the gain and two standard errors of it (as if bounds were independent, which those of warm chains are not quite)
    must be below `tolerance` of the scale. Where noise hides that, the run goes on to its last step: take a larger
    tolerance, or larger minibatches. A tolerance of 0 never stops.
    """

    tolerance: float = eqx.field(static=True, default=1e-3)
    window: int = eqx.field(static=True, default=50)

    def __check_init__(self):
        if self.window < 2:
            raise InputError(f"window must be at least 2, got {self.window}")
        if not self.tolerance >= 0:
            raise InputError(f"tolerance must not be negative, got {self.tolerance}")

    def begin(self, dtype):
        zero = jnp.zeros((), dtype)
        return _Segments(jnp.int32(0), jnp.int32(self.window), _Segment(zero, zero, zero), _Segment(zero, zero, zero))

    def judge(self, bound, memory, size):
        count, end, older, newer = memory
        count, newer = count + 1, newer.with_one_more(bound)
        is_end = count == end
        noise = 2 * jnp.sqrt(older.squared_error() + newer.squared_error())
        is_flat = self._gained(newer.mean - older.mean) + noise < self.tolerance * _scale(bound, size)
        status = jnp.where(is_end & (older.count > 0) & is_flat, Status.converged.value, Status.running.value)
        # A segment that is over becomes the older one, and the next lasts as long as all before it.
        older = jax.tree.map(lambda a, b: jnp.where(is_end, b, a), older, newer)
        newer = jax.tree.map(lambda a: jnp.where(is_end, 0, a), newer)
        return _if_finite(status, bound), _Segments(count, jnp.where(is_end, 2 * end, end), older, newer)

    def _gained(self, change: Array) -> Array:
        return change


class Steady(Plateau):
    """As `Plateau`, for what may also fall on its way: ends when the means over two segments are the same."""

    def _gained(self, change):
        return jnp.abs(change)


class _Segment(NamedTuple):
    """Running moments of the bounds of a stretch of steps."""

    count: Array
    mean: Array
    squares: Array  # sum of squared deviations from the mean

    def with_one_more(self, bound: Array) -> "_Segment":
        count = self.count + 1
        mean = self.mean + (bound - self.mean) / count
        return _Segment(count, mean, self.squares + (bound - self.mean) * (bound - mean))

    def squared_error(self) -> Array:
        """The variance of the mean."""
        count = jnp.maximum(self.count, 2)
        return self.squares / (count * (count - 1))


class _Segments(NamedTuple):
    count: Array
    end: Array  # the step at which the newer segment is over
    older: _Segment
    newer: _Segment


class Completed(StoppingRule):
    """For runs of a length that is known: ends after `num_steps`."""

    num_steps: int = eqx.field(static=True)

    def begin(self, dtype):
        return jnp.int32(0)

    def resumed(self, memory, dtype):
        return memory % self.num_steps

    def judge(self, bound, memory, size):
        count = memory + 1
        status = jnp.where(count >= self.num_steps, Status.converged.value, Status.running.value)
        return _if_finite(status, bound), count
