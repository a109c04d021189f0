"""Stretches of a corpus in which somebody speaks."""

from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from vbss.audio import Recording, read_recording, resample
from vbss.audio.sound_files import SoundFiles
from vbss.errors import InputError
from vbss.scenes.corpus import SpeechCorpus

_FRAME = 0.05  # s, of which it is asked whether somebody speaks
_QUIET = 1e-3  # a frame this far below the file's loud ones (30 dB in power) is a pause
_LOUD = 0.95  # quantile of the frames' powers that counts as loud
_SHARE = 0.6  # of the frames must be speech


def draw_excerpts(
    corpus: SpeechCorpus, count: int, sample_rate: int, seconds: float, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "count samples"], list[dict[str, str | float]]]:
    """Excerpts of `count` different speakers, each speaking for at least 60 % of the time.

    Speakers, files and beginnings are drawn at random; a file without such a stretch is passed over. Of a file with
    several channels the first is taken.

    Args:
        corpus: the speech.
        count: number of speakers.
        sample_rate: Hz, to which the files are resampled.
        seconds: length of the excerpts, s.
        generator: of the draws.

    Returns:
        The excerpts, float64, without mean, and for each its speaker, file and beginning (s).

    Raises:
        InputError: if fewer than `count` speakers have such a stretch, or a file cannot be read.
    """
    length, frame = round(seconds * sample_rate), round(_FRAME * sample_rate)
    excerpts, origins = [], []
    for speaker in generator.permutation(list(corpus.files)):
        for file in generator.permutation(corpus.files[speaker]):
            if _seconds(corpus.folder / file) < seconds:
                continue
            recording = _recording(corpus.folder / file)
            if recording is None:
                continue
            samples = resample(recording, sample_rate).samples[0].astype(np.float64)
            begins = _speech_begins(samples, length, frame)
            if len(begins):
                begin = int(generator.choice(begins))
                excerpt = samples[begin : begin + length]
                excerpts.append(excerpt - excerpt.mean())
                origins.append({"speaker": str(speaker), "file": str(file), "begin_seconds": begin / sample_rate})
                break
        if len(excerpts) == count:
            return np.stack(excerpts), origins
    raise InputError(
        f"{len(excerpts)} speakers of {str(corpus.folder)!r} have a file with {seconds} s of speech without long "
        f"pauses, and the scene needs {count}."
    )


def _seconds(path: Path) -> float:
    """How long a file sounds, from its header: most files of some corpora are too short to be worth reading."""
    try:
        return soundfile.info(path).duration
    except soundfile.SoundFileError:
        return np.inf  # reading it tells what is wrong


def _recording(path: Path) -> Recording | None:
    """What a file holds; None of a silent one."""
    try:
        return read_recording(path)
    except InputError:
        sound = SoundFiles.open(path)
        if sound.read(0, sound.num_samples).any():
            raise
        return None


def _speech_begins(samples: np.ndarray, length: int, frame: int) -> np.ndarray:
    """First samples of the excerpts with enough speech, a whole number of frames from the start."""
    if len(samples) < length:
        return np.empty(0, int)
    num_frames, per_excerpt = len(samples) // frame, length // frame
    power = np.square(samples[: num_frames * frame].reshape(num_frames, frame)).mean(1)
    is_speech = power > _QUIET * np.quantile(power, _LOUD)
    shares = np.lib.stride_tricks.sliding_window_view(is_speech, per_excerpt).mean(1)
    begins = frame * np.flatnonzero(shares >= _SHARE)
    return begins[begins + length <= len(samples)]
