"""What can be wrong with a recording and yet be worked with: dead channels, clipping, an offset, an odd level."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

_DEAD = 1e-6  # of the loudest channel's power: 60 dB below it
_OFFSET = 0.1  # of the root mean square
_UNEVEN = 15.0  # dB between a channel and the median one
_CLIPPED_RUN = 3  # samples on end at the extreme value of their channel: sound only touches it
_CLIPPED_SHARE = 1e-4
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


def recording_warnings(samples: Float[np.ndarray, "channels samples"]) -> Iterator[str]:
    """What a user should know of a recording before trusting what is made of it, a sentence each."""
    is_dead = dead_channels(samples)
    for channel in np.flatnonzero(is_dead):
        yield (
            f"channel {channel} (counted from 0) is silent or more than 60 dB below the loudest, and was left out: is "
            "the microphone connected?"
        )
    power = _powers(samples)[~is_dead]
    levels = 10 * np.log10(power / np.median(power)) if power.size else power
    for channel, level in zip(np.flatnonzero(~is_dead), levels, strict=True):
        if abs(level) > _UNEVEN:
            compared = f"{abs(level):.0f} dB {'louder' if level > 0 else 'quieter'}"
            yield (
                f"channel {channel} (counted from 0) is {compared} than the others: directions and sources suffer from "
                "gains that differ."
            )
    for channel in np.flatnonzero((offsets(samples) != 0) & ~is_dead):
        yield f"channel {channel} (counted from 0) has a constant offset, which was removed."
    for channel, sound in enumerate(samples):
        # At a few steps of the file's resolution, sound stands at its limits without being clipped.
        is_coarse = np.abs(sound).max() < _QUIET_PEAK
        share = 0.0 if is_dead[channel] or is_coarse else _clipped_share(sound)
        if share > _CLIPPED_SHARE:
            yield (
                f"channel {channel} (counted from 0) is clipped ({100 * share:.2g} % of its samples stand at its "
                "limits): lower the recording level."
            )
    share = _share_in_runs(np.all(samples == 0, axis=0, keepdims=True)[0], _SILENT_RUN)
    if share > _SILENT_SHARE:
        yield f"{100 * share:.0f} % of the recording is digital silence, of which nothing can be learnt."
    peak = np.abs(samples).max()
    if peak < _QUIET_PEAK:
        yield f"the recording is very quiet: its peak is {-20 * np.log10(peak):.0f} dB below full scale."
    if peak > 1:
        yield f"the recording is louder than full scale: its peak is {peak:.3g}. The sources are written at its level."


def _clipped_share(sound: Float[np.ndarray, " samples"]) -> float:
    """The share of samples that stand in a row at the highest or lowest value."""
    if np.ptp(sound) == 0:
        return 0.0
    return sum(_share_in_runs(np.equal(sound, limit), _CLIPPED_RUN) for limit in (sound.max(), sound.min()))


def _share_in_runs(is_so: Bool[np.ndarray, " samples"], shortest: int) -> float:
    """The share of samples that are so together with their neighbours, `shortest` or more on end."""
    edges = np.diff(np.concatenate([[0], is_so.astype(np.int8), [0]]))
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return float(lengths[lengths >= shortest].sum() / len(is_so))


def _powers(samples: Float[np.ndarray, "channels samples"]) -> Float[np.ndarray, " channels"]:
    """The power of each channel but for its mean, relative to the recording's peak.

    So the squares of a very quiet recording do not vanish, and a constant is no sound.
    """
    centred = samples - samples.mean(axis=1, keepdims=True, dtype=np.float64)
    peak = np.abs(centred).max()
    return np.mean(np.square(centred / (peak if peak > 0 else 1)), axis=1)
