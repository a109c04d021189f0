"""MESSL on a recording: exact EM while bands of frequencies grow finer, as one compiled program."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vbss.compilation import compiled
from vbss.errors import InputError, whole_number
from vbss.inference.fit import prepare
from vbss.inference.loop import strong
from vbss.inference.solution import Status
from vbss.models import MESSL, messl_start
from vbss.models.messl_closed_forms import em_step, masks_and_bound

_TIED = {"phase_loc": "bands", "phase_variance": "bands", "level_loc": "level_bands", "level_variance": "level_bands"}


class MESSLResult(NamedTuple):
    """What is inferred of a recording.

    Attributes:
        model: as used, with its prior of levels and the ties of the last iteration.
        points: {point: value}, see `vbss.models.MESSL`; a start for `vbss.fit`, or for more iterations.
        elbo: the log evidence and the prior, nats, at the start and after every iteration, shape (num_steps + 1,).
        status: `max_steps`, or that the bound fell by more than rounding or was not finite.
        masks: probability of each source in every bin, shape (F, T, I); what they lack of 1 is the garbage's.
        delay_probs: of each source's delays `model.delays`, shape (I, K).
    """

    model: MESSL
    points: dict[str, Array]
    elbo: Float[np.ndarray, " steps"]
    status: Status
    masks: Float[Array, "f t i"]
    delay_probs: Float[Array, "i k"]

    @property
    def num_steps(self) -> int:
        return len(self.elbo) - 1

    @property
    def delays(self) -> Float[Array, " i"]:
        """The mean of each source's delay, s; positive on the left."""
        return (self.delay_probs * self.model.delays.astype(self.delay_probs.dtype)[None]).sum(-1)


def infer_messl(
    model: MESSL,
    data: Any,
    *,
    num_steps: int = 16,
    level_prior: float | None = None,
    start: Mapping[str, Any] | None = None,
    bands: Int[np.ndarray, "n f"] | None = None,
) -> MESSLResult:
    """Infer a binaural recording's sources by exact EM; the bound never falls.

    Compiled once for a shape. In the precision of the data.

    Args:
        data: the program's arguments: phase and level differences, and which bins were observed.
        num_steps: iterations.
        level_prior: strength of the prior that levels are those of a human-sized head at the delays that the histogram
            shows (`MESSL.with_level_prior`; the source of the method takes 3, with garbage); level parameters are then
            untied from the first iteration on. By default the model's own prior is kept.
        start: values of points; by default `MESSL.start`.
        bands: slots of each frequency's parameters in every iteration, shape (num_steps, F), later bands within
            earlier ones; by default `growing_bands`.

    Raises:
        InputError: for data that cannot be the model's, points of another shape, or bands that are not nested.
    """
    arguments = prepare(model, data)
    num_steps = whole_number("num_steps", num_steps, 1)
    schedule = _checked_bands(model, num_steps, bands)
    strength = None if level_prior is None else jnp.asarray(level_prior, arguments[0].dtype)
    given = {name: jnp.asarray(value, arguments[0].dtype) for name, value in (start or {}).items()}
    _check_start(model, given)
    model, points, bound, masks = _infer(strong(model), strength, given, schedule, arguments)
    trace = np.asarray(bound)
    weights = jnp.exp(points["log_weights"]).reshape(model.shape[1:])[: model.num_sources]
    delay_probs = weights / weights.sum(-1, keepdims=True)
    return MESSLResult(model, points, trace, _status(trace), masks[..., : model.num_sources], delay_probs)


@compiled
def _infer(
    model: MESSL,
    strength: Array | None,
    given: dict[str, Array],
    schedule: Int[Array, "n f"],
    data: tuple,
) -> tuple[MESSL, dict[str, Array], Float[Array, " steps"], Float[Array, "f t c"]]:
    """The whole inference."""
    dtype = data[0].dtype
    delays = messl_start.source_delays(model, data[0], *data[2:])
    has_levels = strength is not None
    if has_levels:
        model = model.with_level_prior(delays, data[0].shape[1], strength.astype(model.delays.dtype))
    points = {**messl_start.points_at(model, delays, dtype), **given}
    untied = jnp.arange(schedule.shape[1], dtype=schedule.dtype)

    def tied(bands: Array) -> MESSL:
        return model.replace(bands=bands, level_bands=untied if has_levels else bands)  # type: ignore[return-value]

    def step(points: dict[str, Array], bands: Array) -> tuple[dict[str, Array], Array]:
        at_bands = tied(bands)
        after, bound = em_step(at_bands, points, data)
        # Each slot gets what the frequency of its name has: a band that is split next hands its values on.
        spread = {name: after[name][getattr(at_bands, ties)] for name, ties in _TIED.items()}
        return {**after, **spread}, bound

    points, bounds = jax.lax.scan(step, points, schedule)
    model = tied(schedule[-1])
    masks, last = masks_and_bound(model, points, data)
    return model, points, jnp.append(bounds, last), masks


def _checked_bands(model: MESSL, num_steps: int, bands: Any) -> Int[Array, "n f"]:
    num_frequencies = model.shape[0]
    if bands is None:
        return jnp.asarray(messl_start.growing_bands(num_frequencies, num_steps))
    bands = np.asarray(bands)
    if bands.shape != (num_steps, num_frequencies) or not np.issubdtype(bands.dtype, np.integer):
        raise InputError(
            f"bands must be whole numbers of shape (num_steps, frequencies) {(num_steps, num_frequencies)}, got "
            f"{bands.dtype} of shape {bands.shape}."
        )
    is_slot = (bands >= 0) & (bands < num_frequencies)
    if not is_slot.all() or (np.take_along_axis(bands, bands, 1) != bands).any():
        raise InputError("bands must name each band by one of its own frequencies.")
    if (np.take_along_axis(bands[:-1], bands[1:], 1) != bands[:-1]).any():
        raise InputError("bands must be nested: those of an iteration within those of the iteration before.")
    return jnp.asarray(bands, jnp.int32)


def _check_start(model: MESSL, start: Mapping[str, Array]) -> None:
    num_frequencies, num_classes, num_delays = model.shape
    states = num_frequencies, num_classes, num_delays
    shapes = {"log_weights": (num_classes * num_delays,), "phase_loc": states, "phase_variance": states}
    shapes |= {"level_loc": states[:2], "level_variance": states[:2]}
    for name, value in start.items():
        if name not in shapes or value.shape != shapes[name]:
            raise InputError(f"start must hold points of the shapes {shapes}, got {name!r} of shape {value.shape}.")


def _status(bounds: Float[np.ndarray, " steps"]) -> Status:
    if not np.isfinite(bounds).all():
        return Status.nonfinite
    rounding = np.finfo(bounds.dtype).eps ** 0.75 * np.abs(bounds).max()
    return Status.bound_decreased if (np.diff(bounds) < -rounding).any() else Status.max_steps
