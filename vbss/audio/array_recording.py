"""A recording together with its microphones: checked, its faults put right or told."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vbss.audio.faults import dead_channels, dropout_warnings, offsets, recording_warnings
from vbss.audio.files import Recording
from vbss.audio.geometry import check_microphone_positions, is_linear
from vbss.audio.lost_sound import LostSound
from vbss.errors import InputError, whole_number


@dataclass(frozen=True)
class ArrayRecording:
    """What the working microphones of an array heard, at a level of order one.

    Attributes:
        samples: of the channels that have sound, without constant offset, divided by 2^exponent.
        is_lost: where any of these channels does not hold what its microphone heard: in dropouts, and where it is
            clipped, unless clipping is everywhere (see `vbss.audio.lost_sound.LostSound`).
        exponent: makes the peak lie between one half and one; scaling by a power of two does not round.
        sample_rate: Hz.
        channels: the numbers that these channels have in the recording, from 0.
        offsets: what was taken from each of these channels.
        microphone_positions: of these channels, m; None where they are not known.
        reference_microphone: index of the reference among these channels.
        warnings: what is wrong with the recording, a sentence each.
    """

    samples: Float[np.ndarray, "channels samples"]
    is_lost: Bool[np.ndarray, " samples"]
    exponent: int
    sample_rate: int
    channels: Int[np.ndarray, " channels"]
    offsets: Float[np.ndarray, " channels"]
    microphone_positions: Float[np.ndarray, "channels 3"] | None
    reference_microphone: int
    warnings: tuple[str, ...]

    @classmethod
    def check(cls, recording: Any, microphone_positions: Any, reference_microphone: Any = None) -> "ArrayRecording":
        """Refuse what cannot be the recording of an array, and leave out the channels that are silent or drop out.

        Args:
            recording: a `Recording`.
            microphone_positions: m, one row of x y z per channel; None where they are not known.
            reference_microphone: index of a channel; if that one is left out, or none is named, it is the first that is
                not.

        Raises:
            InputError: if the arguments are of other kinds, the microphones do not fit the channels, fewer than two
                channels have sound throughout, or two hold the same sound.
        """
        if not isinstance(recording, Recording):
            raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
        num_channels = len(recording.samples)
        if num_channels < 2:
            raise InputError("recording has one channel; a microphone array has two or more.")
        if microphone_positions is not None:
            # Counted before `check_microphone_positions`, which compares each with each.
            shape = getattr(microphone_positions, "shape", ())
            if len(shape) == 2 and shape[0] != num_channels:
                raise InputError(
                    f"microphone_positions holds {shape[0]} microphones, but recording has {num_channels} channels."
                )
            check_microphone_positions(microphone_positions)
        if reference_microphone is not None:
            reference_microphone = whole_number("reference_microphone", reference_microphone, 0, num_channels - 1)

        is_dead = dead_channels(recording.samples)
        lost = LostSound.find(recording.samples, is_dead, recording.sample_rate)
        is_live = ~is_dead & ~lost.is_failing
        if is_live.sum() < 2:
            message = f"recording has sound in {is_live.sum()} of its {num_channels} channels; at least two are needed."
            raise InputError(" ".join([message, *dropout_warnings(lost)]))
        _check_channels_differ(recording.samples, is_live)
        warnings = list(recording_warnings(recording.samples, lost))
        reference = reference_microphone
        if reference is None:
            reference = int(np.argmax(is_live))
        elif not is_live[reference]:
            reference = int(np.argmax(is_live))
            reason = "is silent" if is_dead[reference_microphone] else "drops out"
            warnings.append(f"microphone {reference} is the reference, as microphone {reference_microphone} {reason}.")
        positions = None
        if microphone_positions is not None:
            positions = np.asarray(microphone_positions, np.float64)[is_live]
            check_microphone_positions(positions, "microphone_positions of the channels that have sound")
            if is_linear(positions):
                warnings.append(
                    "the microphones stand in a line and cannot tell its two sides apart: the true direction may be "
                    "the mirror image of the one given."
                )
        samples = recording.samples[is_live]
        constant = offsets(samples).astype(samples.dtype)
        samples = samples - constant[:, None]
        _, exponent = np.frexp(np.abs(samples).max())
        return cls(
            samples=np.ldexp(samples, -exponent),
            is_lost=lost.is_lost,
            exponent=int(exponent),
            sample_rate=recording.sample_rate,
            channels=np.flatnonzero(is_live),
            offsets=constant,
            microphone_positions=positions,
            reference_microphone=int(np.count_nonzero(is_live[:reference])),
            warnings=tuple(warnings),
        )

    def of(self, samples: Float[np.ndarray, "all_channels samples"]) -> "ArrayRecording":
        """Another stretch of the recording that these are excerpts of: its level, its channels.

        Channels that are silent or drop out in this stretch are left out of it, if two remain.

        Args:
            samples: of all channels that the recording has.
        """
        samples = samples[self.channels]
        is_dead = dead_channels(samples)
        lost = LostSound.find(samples, is_dead, self.sample_rate)
        is_live = ~is_dead & ~lost.is_failing
        if is_live.sum() < 2:
            is_live[:] = True
        is_reference = np.arange(len(samples)) == self.reference_microphone
        return replace(
            self,
            samples=np.ldexp(samples - self.offsets[:, None], -self.exponent)[is_live],
            is_lost=lost.is_lost,
            channels=self.channels[is_live],
            offsets=self.offsets[is_live],
            microphone_positions=None if self.microphone_positions is None else self.microphone_positions[is_live],
            reference_microphone=int(np.argmax(is_reference[is_live])),  # the first that is left, if it is not
        )


def _check_channels_differ(samples: Float[np.ndarray, "channels samples"], is_live: np.ndarray) -> None:
    first_with: dict[bytes, int] = {}
    for channel in np.flatnonzero(is_live).tolist():
        first = first_with.setdefault(sha256(samples[channel].tobytes()).digest(), channel)
        if first != channel:
            raise InputError(
                f"recording holds the same sound in channels {first} and {channel} (counted from 0): "
                "each needs a microphone of its own."
            )
