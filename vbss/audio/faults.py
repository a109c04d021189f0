"""What can be wrong with a recording and yet be worked with: dead channels, lost sound, an offset, an odd level."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from vbss.audio.lost_sound import LostSound, runs

_DEAD = 1e-6  # of the loudest channel's power: 60 dB below it
_OFFSET = 0.1  # of the root mean square
_UNEVEN = 15.0  # dB between a channel and the median one
_SILENT_RUN = 400  # samples on end that are exactly zero in all channels
_SILENT_SHARE = 0.01
_QUIET_PEAK = 1e-3  # of full scale: ten bits of a 16-bit file are unused


def dead_channels(samples: Float[np.ndarray, "channels samples"]) -> Bool[np.ndarray, " channels"]:
    """The channels without sound: constant, or more than 60 dB below the loudest."""
    power = _powers(samples)
    is_constant = np.ptp(samples, axis=1) == 0
    return is_constant | (power < _DEAD * power.max())


def offsets(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " channels"]:
    """The mean of each channel where it is more than a tenth of the channel's root mean square, else zero."""
    means = samples.mean(axis=1, dtype=np.float64)
    scale = np.abs(samples).max(axis=1).astype(np.float64)
    scale = np.where(scale > 0, scale, 1)
    level = scale * np.sqrt(np.mean(np.square(samples / scale[:, None]), axis=1))
    return np.where(np.abs(means) > _OFFSET * level, means, 0)


def without_offsets(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, "channels samples"]:
    """The same channels without their `offsets`; those that are constant are silent."""
    found = samples - offsets(samples).astype(samples.dtype)[:, None]
    found[np.ptp(samples, axis=1) == 0] = 0
    return found


def recording_warnings(samples: Float[np.ndarray, "channels samples"], lost: LostSound) -> Iterator[str]:
    """What a user should know of a recording before trusting what is made of it, a sentence each.

    Args:
        samples: the recording.
        lost: what is lost of it.
    """
    is_dead = dead_channels(samples)
    is_used = ~is_dead & ~lost.is_failing
    for channel in np.flatnonzero(is_dead):
        yield (
            f"channel {channel} (counted from 0) is silent or more than 60 dB below the loudest, and was left out: is "
            "the microphone connected?"
        )
    yield from dropout_warnings(lost)
    power = _powers(samples)[is_used]
    levels = 10 * np.log10(power / np.median(power)) if power.size else power
    for channel, level in zip(np.flatnonzero(is_used), levels, strict=True):
        if abs(level) > _UNEVEN:
            compared = f"{abs(level):.0f} dB {'louder' if level > 0 else 'quieter'}"
            yield (
                f"channel {channel} (counted from 0) is {compared} than the others: directions and sources suffer from "
                "gains that differ."
            )
    yield from _offset_warnings(samples, is_used)
    yield from _clipping_warnings(lost, is_used_as_it_is=lost.is_clipping_everywhere)
    yield from _silence_warnings(samples)
    peak = np.abs(samples).max()
    if peak < _QUIET_PEAK:
        yield f"the recording is very quiet: its peak is {-20 * np.log10(peak):.0f} dB below full scale."
    if peak > 1:
        yield f"the recording is louder than full scale: its peak is {peak:.3g}. The sources are written at its level."


def alone_warnings(samples: Float[np.ndarray, "channels samples"], sample_rate: int) -> Iterator[str]:
    """What a user should know of channels that are taken each by itself, as they are but for their offsets."""
    is_dead = dead_channels(samples)
    yield from _offset_warnings(samples, ~is_dead)
    yield from _clipping_warnings(LostSound.find(samples, is_dead, sample_rate), is_used_as_it_is=True)
    yield from _silence_warnings(samples)


def _offset_warnings(
    samples: Float[np.ndarray, "channels samples"], is_used: Bool[np.ndarray, " channels"]
) -> Iterator[str]:
    for channel in np.flatnonzero((offsets(samples) != 0) & is_used):
        yield f"channel {channel} (counted from 0) has a constant offset, which was removed."


def _silence_warnings(samples: Float[np.ndarray, "channels samples"]) -> Iterator[str]:
    starts, stops = runs(np.all(samples == 0, axis=0), _SILENT_RUN)
    share = (stops - starts).sum() / samples.shape[1]
    if share > _SILENT_SHARE:
        yield f"{100 * share:.0f} % of the recording is digital silence, of which nothing can be learnt."


def _clipping_warnings(lost: LostSound, *, is_used_as_it_is: bool) -> Iterator[str]:
    treatment = "It was used as it is" if is_used_as_it_is else "Nothing was learnt from these moments"
    for channel in np.flatnonzero(lost.is_clipped.any(axis=1)):
        share = lost.is_clipped[channel].mean()
        yield (
            f"channel {channel} (counted from 0) is clipped ({100 * share:.2g} % of its samples stand at its limits): "
            f"lower the recording level. {treatment}."
        )


def dropout_warnings(lost: LostSound) -> Iterator[str]:
    """Which channels drop out, when, and what becomes of them, a sentence each."""
    for channel in np.flatnonzero(lost.is_dropped.any(axis=1)):
        starts, stops = runs(lost.is_dropped[channel])
        first, last, total = (
            f"{round(samples / lost.sample_rate, 2):g} s" for samples in (starts[0], stops[-1], (stops - starts).sum())
        )
        until = "on" if stops[-1] == lost.is_dropped.shape[1] else f"to {last}"
        times = f"{len(starts)} times" if len(starts) > 1 else "once"
        if not lost.is_failing[channel]:
            yield (
                f"channel {channel} (counted from 0) dropped out {times}, for {total} in total. Nothing was learnt "
                "from these moments."
            )
        elif len(starts) == 1:
            yield f"channel {channel} (counted from 0) has no sound from {first} {until}, and was left out."
        else:
            yield (
                f"channel {channel} (counted from 0) dropped out {times} from {first} {until}, for {total} in total, "
                "and was left out."
            )


def _powers(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " channels"]:
    """The power of each channel but for its mean, relative to the recording's peak.

    So the squares of a very quiet recording do not vanish, and a constant is no sound.
    """
    centred = samples - samples.mean(axis=1, keepdims=True, dtype=np.float64)
    peak = np.abs(centred).max()
    return np.mean(np.square(centred / (peak if peak > 0 else 1)), axis=1)
