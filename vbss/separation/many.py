"""Many recordings: one compiled program for all of similar length, and their share for each of several processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Real

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.files import Recording, read_recording
from vbss.audio.sound_files import SoundFiles
from vbss.audio.stft import STFT
from vbss.errors import InputError
from vbss.inference import Status
from vbss.separation.results import Separation, shares
from vbss.separation.whole import separate_recorded
from vbss.settings import Settings

_STEP_BITS = 3  # eight lengths in each octave

Files = str | Path | Sequence[str | Path]


class Shape(NamedTuple):
    """What recordings have in common that one compiled program separates; all zero for one that cannot be read.

    Attributes:
        sample_rate: Hz.
        num_channels: of the recording.
        num_samples: to which each channel is extended (`bucket_length`).
    """

    sample_rate: int
    num_channels: int
    num_samples: int

    @classmethod
    def of(cls, files: Files) -> "Shape":
        """That of a sound file, or of the files of several channels, by their headers."""
        try:
            sound = SoundFiles.open(*_each(files))
        except InputError:
            return cls(0, 0, 0)
        return cls(sound.sample_rate, sound.num_channels, bucket_length(sound.num_samples))


def bucket_length(num_samples: int) -> int:
    """The least length, of eight in each octave, that is not below `num_samples`: at most an eighth longer."""
    step = 1 << max(0, num_samples.bit_length() - 1 - _STEP_BITS)
    return -(-num_samples // step) * step


def share(shapes: Mapping[str, Shape], process: int, num_processes: int) -> list[str]:
    """The names of the recordings that one of several processes separates.

    Recordings of one shape stay together, but for those where one process's share ends and the next one's begins. The
    shares are of nearly equal length, channels counted one by one. Whoever computes them from the same shapes gets the
    same.

    Args:
        shapes: of all recordings, by name, in any order.
        process: whose share is wanted, counted from 0.
        num_processes: how many there are.
    """
    names = sorted(shapes, key=lambda name: (shapes[name], name))
    lengths = [shapes[name].num_channels * shapes[name].num_samples for name in names]
    total, end, own = sum(lengths), 0, []
    for name, length in zip(names, lengths, strict=True):
        end += length
        # On a line of all recordings, cut into equal parts, by the part in which a recording's middle lies.
        if (2 * end - length) * num_processes // max(2 * total, 1) == process:
            own.append(name)
    return own


@dataclass(frozen=True)
class Outcome:
    """What became of one of many recordings.

    Attributes:
        name: of the recording.
        recording: None if it could not be read.
        separation: None if there was an error.
        error: why there is no separation.
    """

    name: str
    recording: Recording | None
    separation: Separation | None
    error: Exception | None


def separate_many(
    recordings: Mapping[str, Files],
    microphone_positions: Real[Array | np.ndarray, "microphones 3"] | None,
    num_sources: int | np.integer | str | Mapping[str, int | str],
    *,
    reference_microphone: int | np.integer = 0,
    all_channels: bool = False,
    **settings: Any,
) -> Iterator[Outcome]:
    """Separate recordings of one array, each as `vbss.separate` does it, but with few programs to compile.

    They are read one after the other, when their turn comes: those of one sample rate, number of channels, number of
    sources and similar length in a row, the shortest first. Silence at the end extends each to the next of eight
    lengths per octave, so that one compiled program serves all of them (two, where some are noisy:
    `vbss.Pipeline.has_noise`); what is found is cut back. What is wrong with a recording is looked for before. Compared
    with `vbss.separate`, a frame or two more hold the sound's end, the level of loud frames is that of a percentile of
    somewhat more frames, and the sum model's random start is drawn for another number of frames: masks differ little,
    the sounds of "cgmm+nmf" as they would with another `seed`. The posteriors of `Separation.solutions` keep the frames
    of silence. From one length to the next, what JAX has compiled is dropped (`jax.clear_caches`), as a process may
    only hold so many programs.

    A recording that cannot be separated does not end the others. How inference ended is to be seen in each separation's
    status, as with `vbss.separate`.

    Args:
        recordings: by name, a sound file with one channel per microphone, or one file for each microphone in order.
        microphone_positions: metres, in the order of the channels; None if they are not known.
        num_sources: how many there are in every recording, or in each by its name.
        reference_microphone: whose sound is separated, counted from 0.
        all_channels: whether the sources are wanted as every microphone hears them, too (`Separation.images`).
        settings: fields of `vbss.Settings`.

    Returns:
        The outcomes, each computed when it is asked for. Their errors are those of `vbss.audio.read_recording` and
        `vbss.separate`, and of memory that ran out.

    Raises:
        InputError: at once, for settings or a number of sources that cannot be.
    """
    chosen = Settings(**settings).of_array(microphone_positions is not None)
    numbers = num_sources if isinstance(num_sources, Mapping) else dict.fromkeys(recordings, num_sources)
    unknown = [name for name in recordings if name not in numbers]
    if unknown:
        raise InputError(f"num_sources has no number for the recording {unknown[0]!r}.")
    for name in recordings:
        chosen.check_num_sources(numbers[name])
    return _outcomes(recordings, microphone_positions, numbers, reference_microphone, all_channels, chosen)


def _outcomes(
    recordings: Mapping[str, Files],
    microphone_positions: Any,
    numbers: Mapping[str, Any],
    reference_microphone: Any,
    all_channels: bool,
    settings: Settings,
) -> Iterator[Outcome]:
    kinds = {name: (Shape.of(files), str(numbers[name])) for name, files in recordings.items()}
    names = sorted(recordings, key=lambda name: kinds[name])
    for before, name in zip([None, *names], names, strict=False):
        if before is not None and kinds[before] != kinds[name]:
            jax.clear_caches()  # of what is not called again: programs fill memory, and the pieces a process may map
        recording = separation = error = None
        try:
            recording = read_recording(*_each(recordings[name]))
            recorded = ArrayRecording.check(recording, microphone_positions, reference_microphone)
            separation = _padded_separation(recording, recorded, numbers[name], settings, all_channels)
        except (ValueError, OSError, MemoryError) as failure:
            error = failure
        except RuntimeError as failure:
            # JAX's error for a device without enough memory, told by its text as its type is not public.
            if "RESOURCE_EXHAUSTED" not in str(failure):
                raise
            error = MemoryError("a shorter recording or fewer sources need less memory.")
        if separation is not None and any(
            solution.status is Status.interrupted for solution in separation.solutions.values()
        ):
            raise KeyboardInterrupt
        yield Outcome(name, recording, separation, error)


def _padded_separation(
    recording: Recording, recorded: ArrayRecording, num_sources: Any, settings: Settings, all_channels: bool
) -> Separation:
    """What is found in the recording with silence at its end, without what is found there."""
    num_samples = recording.samples.shape[1]
    stft = settings.stft(recording.sample_rate, num_samples)  # refuses what is shorter than a window
    after = bucket_length(num_samples) - num_samples
    padded = replace(
        recorded,
        samples=np.pad(recorded.samples, ((0, 0), (0, after))),
        is_lost=np.pad(recorded.is_lost, (0, after)),
    )
    separation = separate_recorded(padded, num_sources, settings, all_channels=all_channels)
    sources, images = separation.sources[:, :num_samples], None
    if separation.images is not None:
        images = np.zeros((len(sources), *recording.samples.shape), sources.dtype)
        images[:, recorded.channels] = separation.images[..., :num_samples]
    return replace(
        separation,
        sources=sources,
        images=images,
        masks=separation.masks[: _num_frames(stft, num_samples)],
        energy_shares=shares(np.sum(np.square(sources, dtype=np.float64), axis=1)),
    )


def _num_frames(stft: STFT, num_samples: int) -> int:
    """How many frames `stft.forward` makes of a signal."""
    return -(-(num_samples - stft.window_length % 2) // stft.hop_length) + 1


def _each(files: Files) -> Sequence[str | Path]:
    return [files] if isinstance(files, str | Path) else files
