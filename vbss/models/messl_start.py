"""Where MESSL starts: the delays that most frames have, levels of a head, and bands that grow finer.

Source: Mandel, Weiss and Ellis, "Model-based expectation-maximization source separation and localization" (2010).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vbss.errors import whole_number

_SAMPLE = 1 / 16_000  # s: the source's unit of delay
_CLOSEST = 5 * _SAMPLE  # between neighbours nearer than that, windows are narrower
_GARBAGE_VARIANCE = 9.0  # rad^2
LEVEL_VARIANCE = 100.0  # dB^2, of level differences that nothing is known of


def start(
    model: Any, phase_difference: Float[Array, "f t"], is_observed: Bool[Array, "f t"] | None = None
) -> dict[str, Array]:
    """Each source about one peak of the histogram of delays, the garbage everywhere: {point: value} for `vbss.fit`.

    Levels start at the model's prior means. Sources stand in the order of their delays, from right to left.
    """
    return points_at(model, source_delays(model, phase_difference, is_observed), phase_difference.dtype)


def points_at(model: Any, source_delays: Float[Array, " i"], dtype: Any) -> dict[str, Array]:
    """The points from which to start with sources at given delays (s), in increasing order."""
    num_frequencies, num_classes, num_delays = model.shape
    delays, centres = model.delays.astype(dtype), source_delays.astype(dtype)
    widths = _window_widths(centres)
    windows = jnp.exp(-(((delays[None] - centres[:, None]) / widths[:, None]) ** 2) / 2) + 1e-6
    windows = jnp.concatenate([windows, jnp.ones((num_classes - model.num_sources, num_delays), dtype)])
    log_weights = jnp.log(windows / windows.sum(-1, keepdims=True) / num_classes)
    is_garbage = jnp.arange(num_classes) >= model.num_sources
    variance = jnp.where(is_garbage, _GARBAGE_VARIANCE, 1.0).astype(dtype)[None, :, None]
    states = (num_frequencies, num_classes, num_delays)
    # A slot is named by one of its frequencies, and starts with that frequency's level.
    return {
        "log_weights": log_weights.reshape(-1),
        "phase_loc": jnp.zeros(states, dtype),
        "phase_variance": jnp.broadcast_to(variance, states),
        "level_loc": model.level_prior_mean.astype(dtype),
        "level_variance": jnp.full(states[:2], LEVEL_VARIANCE, dtype),
    }


def source_delays(
    model: Any, phase_difference: Float[Array, "f t"], is_observed: Bool[Array, "f t"] | None = None
) -> Float[Array, " i"]:
    """The delays (s) that are best for the most frames, increasing: peaks of the PHAT histogram.

    A frame's best delay maximises sum_f cos(phase_ft - omega_f tau). After each peak, what is within a sample (1/16 ms)
    of it is left out.
    """
    shift = model.shift(phase_difference.dtype)
    phase = jnp.stack([jnp.cos(phase_difference), jnp.sin(phase_difference)])
    if is_observed is not None:
        phase = jnp.where(is_observed[None], phase, 0)
    rotated = jnp.stack([jnp.cos(shift), jnp.sin(shift)])
    correlation = jnp.einsum("aft,afk->tk", phase, rotated, precision="highest")
    is_heard = (phase != 0).any((0, 1))
    best = jax.nn.one_hot(correlation.argmax(-1), len(model.delays), dtype=shift.dtype)
    histogram = jnp.where(is_heard[:, None], best, 0).sum(0)
    delays = model.delays.astype(shift.dtype)
    peaks = []
    for _ in range(model.num_sources):
        peak = delays[histogram.argmax()]
        peaks.append(peak)
        histogram = jnp.where(jnp.abs(delays - peak) <= _SAMPLE, -1, histogram)
    return jnp.sort(jnp.stack(peaks))


def _window_widths(centres: Float[Array, " i"]) -> Float[Array, " i"]:
    """One sample, or a fifth of the distance to the nearer of two close neighbours (the later pair decides), in s."""
    widths = jnp.full(centres.shape, _SAMPLE, centres.dtype)
    for left in range(len(centres) - 1):
        distance = centres[left + 1] - centres[left]
        narrow = jnp.where(distance < _CLOSEST, jnp.maximum(distance / 5, _SAMPLE / 10), widths[left : left + 2])
        widths = widths.at[left : left + 2].set(narrow)
    return widths


def head_levels(angular_frequencies: Float[Array, " f"], delays: Float[Array, " i"]) -> Float[Array, "f i"]:
    """The level difference (dB, left against right) of a source whose sound reaches the left ear `delays` (s) earlier.

    A regression of the source's authors on the anechoic responses of dummy heads, with the sign of both turned.

    Args:
        angular_frequencies: rad/s.
    """
    v = angular_frequencies[:, None] / (2000 * np.pi)  # kHz
    u = 1000 * delays[None]  # ms
    odd = u * v * (16.01 - 2.636 * v + 0.1702 * v**2 - 0.0036 * v**3)
    square = (u * v) ** 2 * (0.431 - 0.07007 * v + 0.002534 * v**2)
    fourth = u**4 * v**2 * (0.4577 - 0.09647 * v + 0.003942 * v**2)
    return 0.06945 + odd - square + fourth


def growing_bands(num_frequencies: int, num_steps: int) -> Int[np.ndarray, "n f"]:
    """The `bands` of every iteration: from one that holds all frequencies to one for each, by halving bands.

    The first three and the last three iterations (of few, a third) keep their bands, between them their number doubles
    step by step (or faster). Band b of 2^l reaches from round(b F / 2^l) to round((b + 1) F / 2^l), whatever F, so that
    later bands always lie within earlier ones. A band's slot is its first frequency.

    Raises:
        InputError: for a number below 1.
    """
    num_frequencies = whole_number("num_frequencies", num_frequencies, 1)
    num_steps = whole_number("num_steps", num_steps, 1)
    finest = int(np.ceil(np.log2(num_frequencies)))
    held = min(3, (num_steps - 1) // 3)
    place = (np.arange(num_steps) - held) / max(1, num_steps - 1 - 2 * held)
    halvings = np.floor(finest * np.clip(place, 0, 1) + 0.5).astype(int)
    return np.stack([_halved(num_frequencies, int(number)) for number in halvings])


def _halved(num_frequencies: int, halvings: int) -> Int[np.ndarray, " f"]:
    edges = np.floor(num_frequencies * np.arange(2**halvings + 1) / 2**halvings + 0.5).astype(np.int32)
    own = np.searchsorted(edges, np.arange(num_frequencies), side="right") - 1
    return edges[own]
