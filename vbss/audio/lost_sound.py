"""Where channels do not hold what their microphones heard: clipped sound, and dropouts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

_CLIPPED_RUN = 3  # samples on end at the extreme value of their channel: sound only touches it
_CLIPPED_SHARE = 1e-4
_LEVELS = 8  # a wave's own top leaves its highest level for one of the next four; clipped sound leaves it steeply
_DROPOUT = 0.005  # s on end of one value
_DROPOUT_SAMPLES = 16  # at least, at low rates
_LONG = 0.1  # s: no sound stays clipped for so long, and none takes so long from one microphone to the next
_SOUNDING = 1e-4  # of the mean power: 40 dB below it
_STEPS = 8  # of a channel's resolution, root mean square: sound as loud as this is not constant
_FAILING = 0.1  # of the time in which there is sound
_STRETCH = 0.1  # s, about a window of the analysis: what is lost of it spoils it all


@dataclass(frozen=True)
class LostSound:
    """Which samples of a recording are not what the microphones heard.

    Attributes:
        is_clipped: in a row with others at the highest or the lowest value of a channel that clips there.
        is_dropped: in a row of one value, zero or not, for 5 ms or more while another channel sounds.
        is_failing: the channels that drop out for more than a tenth of the time in which there is sound, or in more
            than half of all stretches of 0.1 s. They are good for nothing, and their clipping is not looked for.
        is_clipping_everywhere: whether clipping spoils more than half of all stretches of 0.1 s.
        sample_rate: Hz.
    """

    is_clipped: Bool[np.ndarray, "channels samples"]
    is_dropped: Bool[np.ndarray, "channels samples"]
    is_failing: Bool[np.ndarray, " channels"]
    is_clipping_everywhere: bool
    sample_rate: int

    @classmethod
    def find(
        cls, samples: Float[np.ndarray, "channels samples"], is_dead: Bool[np.ndarray, " channels"], sample_rate: int
    ) -> "LostSound":
        """What is lost of the channels that are not dead; time is linear, memory a few bytes per sample."""
        is_dropped, sounds = _dropouts(samples, is_dead, sample_rate)
        stretch = max(1, round(_STRETCH * sample_rate))
        is_failing = np.array(
            [
                np.count_nonzero(dropped & sounds) > _FAILING * np.count_nonzero(sounds)
                or _share_of_stretches(dropped, stretch) > 0.5
                for dropped in is_dropped
            ]
        )
        is_clipped = np.zeros_like(is_dropped)
        for channel in np.flatnonzero(~is_dead & ~is_failing):
            is_clipped[channel] = _clipped(samples[channel]) & ~is_dropped[channel]
        is_clipping_everywhere = _share_of_stretches(np.any(is_clipped, axis=0), stretch) > 0.5
        return cls(is_clipped, is_dropped, is_failing, is_clipping_everywhere, sample_rate)

    @property
    def is_lost(self) -> Bool[np.ndarray, " samples"]:
        """Where any channel but the failing ones is lost; where clipping is everywhere, clipped sound is not."""
        is_lost = np.any(self.is_dropped[~self.is_failing], axis=0)
        return is_lost if self.is_clipping_everywhere else is_lost | np.any(self.is_clipped, axis=0)


def runs(is_so: Bool[np.ndarray, " samples"], shortest: int = 1) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """The first sample of each row of samples that are so, `shortest` or more on end, and the sample after its last."""
    edges = np.flatnonzero(np.diff(is_so, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    is_long = stops - starts >= shortest
    return starts[is_long], stops[is_long]


def _inside(
    starts: Int[np.ndarray, " r"], stops: Int[np.ndarray, " r"], num_samples: int
) -> Bool[np.ndarray, " samples"]:
    """The samples of rows that do not overlap."""
    change = np.zeros(num_samples + 1, np.int8)
    change[starts] += 1
    change[stops] -= 1
    return np.cumsum(change[:-1], dtype=np.int8).astype(bool)


def _clipped(sound: Float[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    is_clipped = _clipped_above(sound) | _clipped_above(-sound)
    return is_clipped & (np.mean(is_clipped) > _CLIPPED_SHARE)


def _clipped_above(sound: Float[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    """The rows of samples at the highest value, if sound ends them steeply.

    In a coarse or slow sound several samples stand at the top of a wave too, but the next ones are a few levels lower.
    In a square wave, the next level is the other side.
    """
    limit = sound.max()
    starts, stops = runs(sound == limit, _CLIPPED_RUN)
    next_level = sound.max(where=sound < limit, initial=-np.inf)
    # Where the recording begins or ends with a row, its own value stands for the sample beyond.
    beside = np.minimum(sound[np.maximum(starts - 1, 0)], sound[np.minimum(stops, len(sound) - 1)])
    if not np.any(limit - beside > _LEVELS * (limit - next_level)):
        return np.zeros(len(sound), bool)
    return _inside(starts, stops, len(sound))


def _sounding(
    samples: Float[np.ndarray, "channels samples"], is_dead: Bool[np.ndarray, " channels"], shortest: int
) -> Bool[np.ndarray, "channels samples"]:
    """Where the channels that are not dead do not stand still, which means for `shortest` samples or more."""
    is_sounding = np.zeros(samples.shape, bool)
    for channel in np.flatnonzero(~is_dead):
        starts, stops = runs(samples[channel, 1:] == samples[channel, :-1], shortest - 1)
        is_sounding[channel] = ~_inside(starts, stops + 1, samples.shape[1])
    return is_sounding


def _dropouts(
    samples: Float[np.ndarray, "channels samples"], is_dead: Bool[np.ndarray, " channels"], sample_rate: int
) -> tuple[Bool[np.ndarray, "channels samples"], Bool[np.ndarray, " samples"]]:
    """Where a channel stands still although it should move with the others, and where any channel sounds."""
    shortest = max(_DROPOUT_SAMPLES, round(_DROPOUT * sample_rate))
    is_sounding = _sounding(samples, is_dead, shortest)
    any_sounds = np.any(is_sounding, axis=0)
    is_dropped = np.zeros(samples.shape, bool)
    suspects = np.flatnonzero(is_sounding.any(axis=1) & ~is_sounding.all(axis=1))
    if not suspects.size:
        return is_dropped, any_sounds
    own_power, power = _powers(samples, is_sounding)
    mean_power = power.sum() / np.count_nonzero(any_sounds)
    # One sample more than there are, as `reduceat` takes no row that starts at the end.
    power, any_or_end = np.append(power, 0), np.append(any_sounds, False)
    for channel in suspects:
        sound = samples[channel]
        starts, stops = runs(~is_sounding[channel])
        rows = np.stack([starts, stops], axis=1).ravel()
        num_sounding = np.add.reduceat(any_or_end, rows, dtype=int)[::2]
        loudness = np.add.reduceat(power, rows)[::2] / np.maximum(num_sounding, 1)
        steps = np.abs(np.diff(sound))
        step = steps.min(where=steps > 0, initial=np.inf) / np.abs(samples).max()
        is_at_limit = (sound[starts] == sound.max()) | (sound[starts] == sound.min())
        # Clipped sound stands still too, and so does what one microphone hears a little before or after a pause of all.
        is_whole = num_sounding == stops - starts
        is_dropout = (
            ((is_whole & ~is_at_limit) | (num_sounding >= _LONG * sample_rate))
            & (loudness > _SOUNDING * mean_power)
            & (loudness * own_power[channel] > (_STEPS * step) ** 2 * mean_power)
        )
        is_dropped[channel] = _inside(starts[is_dropout], stops[is_dropout], len(sound))
    return is_dropped, any_sounds


def _powers(
    samples: Float[np.ndarray, "channels samples"], is_sounding: Bool[np.ndarray, "channels samples"]
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " samples"]]:
    """Each channel's mean power where it sounds, and the power over time: the mean of the channels that sound then.

    Both are relative to the recording's peak, as the squares of a quiet recording would vanish.
    """
    peak = np.abs(samples).max().astype(np.float64)
    own, power = np.zeros(samples.shape[0]), np.zeros(samples.shape[1])
    for channel in np.flatnonzero(is_sounding.any(axis=1)):
        sound, sounding = samples[channel], is_sounding[channel]
        square = np.square((sound - sound.mean(where=sounding, dtype=np.float64)) / peak) * sounding
        own[channel] = square.sum() / np.count_nonzero(sounding)
        power += square
    return own, power / np.maximum(is_sounding.sum(axis=0), 1)


def _share_of_stretches(is_lost: Bool[np.ndarray, " samples"], length: int) -> float:
    """The share of stretches of `length` samples in which any is lost."""
    return float(np.mean(np.logical_or.reduceat(is_lost, np.arange(0, len(is_lost), length))))
