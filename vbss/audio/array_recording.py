"""A recording together with its microphones: checked, its faults put right or told."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vbss.audio.faults import dead_channels, offsets, recording_warnings
from vbss.audio.files import Recording
from vbss.audio.geometry import check_microphone_positions, is_linear
from vbss.errors import InputError, whole_number


@dataclass(frozen=True)
class ArrayRecording:
    """What the working microphones of an array heard, at a level of order one.

    Attributes:
        samples: of the channels that have sound, without constant offset, divided by 2^exponent.
        exponent: makes the peak lie between one half and one; scaling by a power of two does not round.
        sample_rate: Hz.
        channels: the numbers that these channels have in the recording, from 0.
        microphone_positions: of these channels, m.
        reference_microphone: index of the reference among these channels.
        warnings: what is wrong with the recording, a sentence each.
    """

    samples: Float[np.ndarray, "channels samples"]
    exponent: int
    sample_rate: int
    channels: Int[np.ndarray, " channels"]
    microphone_positions: Float[np.ndarray, "channels 3"]
    reference_microphone: int
    warnings: tuple[str, ...]

    @classmethod
    def check(cls, recording: Any, microphone_positions: Any, reference_microphone: Any = None) -> "ArrayRecording":
        """Refuse what cannot be the recording of an array, and leave out the channels without sound.

        Args:
            recording: a `Recording`.
            microphone_positions: m, one row of x y z per channel.
            reference_microphone: index of a channel; if that one has no sound, or none is named, it is the first that
                has.

        Raises:
            InputError: if the arguments are of other kinds, the microphones do not fit the channels, fewer than two
                channels have sound, or two hold the same sound.
        """
        if not isinstance(recording, Recording):
            raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
        num_channels = len(recording.samples)
        if num_channels < 2:
            raise InputError("recording has one channel; a microphone array has two or more.")
        # Counted before `check_microphone_positions`, which compares each with each.
        shape = getattr(microphone_positions, "shape", ())
        if len(shape) == 2 and shape[0] != num_channels:
            raise InputError(
                f"microphone_positions holds {shape[0]} microphones, but recording has {num_channels} channels."
            )
        check_microphone_positions(microphone_positions)
        if reference_microphone is not None:
            reference_microphone = whole_number("reference_microphone", reference_microphone, 0, num_channels - 1)

        is_live = ~dead_channels(recording.samples)
        if is_live.sum() < 2:
            raise InputError(
                f"recording has sound in {is_live.sum()} of its {num_channels} channels; at least two are needed."
            )
        _check_channels_differ(recording.samples, is_live)
        warnings = list(recording_warnings(recording.samples))
        reference = reference_microphone
        if reference is None:
            reference = int(np.argmax(is_live))
        elif not is_live[reference]:
            reference = int(np.argmax(is_live))
            warnings.append(f"microphone {reference} is the reference, as microphone {reference_microphone} is silent.")
        positions = np.asarray(microphone_positions, np.float64)[is_live]
        check_microphone_positions(positions, "microphone_positions of the channels that have sound")
        if is_linear(positions):
            warnings.append(
                "the microphones stand in a line and cannot tell its two sides apart: the true direction may be the "
                "mirror image of the one given."
            )
        samples = recording.samples[is_live]
        samples = samples - offsets(samples).astype(samples.dtype)[:, None]
        _, exponent = np.frexp(np.abs(samples).max())
        return cls(
            samples=np.ldexp(samples, -exponent),
            exponent=int(exponent),
            sample_rate=recording.sample_rate,
            channels=np.flatnonzero(is_live),
            microphone_positions=positions,
            reference_microphone=int(np.count_nonzero(is_live[:reference])),
            warnings=tuple(warnings),
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
