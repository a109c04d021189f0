"""When an inference ends: rules for exact bounds and for noisy ones."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    """For noisy bounds: ends when the mean over a window is no longer above the mean over the window before.

    The gain counts as none if it is below `tolerance` of the bound's scale, or below two standard errors of the
    difference: a climb slower than a window's noise is taken for its end, so a longer window climbs further. A
    tolerance of 0 never stops.
    """

    tolerance: float = eqx.field(static=True, default=1e-4)
    window: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        if self.window < 2:
            raise ValueError(f"Plateau: window must be at least 2, got {self.window}")
        if self.tolerance < 0:
            raise ValueError(f"Plateau: tolerance must not be negative, got {self.tolerance}")

    def begin(self, dtype):
        return jnp.zeros((2, self.window), dtype), jnp.int32(0)

    def judge(self, bound, memory, size):
        bounds, count = memory
        bounds = bounds.at[count // self.window % 2, count % self.window].set(bound)
        count = count + 1
        newer = (count // self.window + 1) % 2  # the window that was just filled, where one was
        mean, variance = bounds.mean(1), bounds.var(1, ddof=1)
        gain = jnp.where(newer == 1, mean[1] - mean[0], mean[0] - mean[1])
        noise = 2 * jnp.sqrt(variance.sum() / self.window)
        is_flat = self._gained(gain) < jnp.maximum(self.tolerance * _scale(bound, size), noise)
        may_end = (count % self.window == 0) & (count >= 2 * self.window) & (self.tolerance > 0)
        status = jnp.where(may_end & is_flat, Status.converged.value, Status.running.value)
        return _if_finite(status, bound), (bounds, count)

    def _gained(self, change: Array) -> Array:
        return change


class Steady(Plateau):
    """As `Plateau`, for what may also fall on its way: ends when the means over two windows are the same."""

    def _gained(self, change):
        return jnp.abs(change)


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
