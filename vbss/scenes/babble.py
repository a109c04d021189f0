"""Babble: many voices at once, of which none is understood."""

import numpy as np
from jaxtyping import Float

from vbss.audio import read_recording, resample
from vbss.scenes.corpus import SpeechCorpus

_VOICES = 8  # in each sound


def draw_babble(
    corpus: SpeechCorpus,
    count: int,
    sample_rate: int,
    num_samples: int,
    generator: np.random.Generator,
    *,
    without: frozenset[str] = frozenset(),
) -> Float[np.ndarray, "count num_samples"]:
    """Independent sounds of eight voices each, of mean square 1.

    Files are drawn at random, begin anywhere and are repeated where they are too short. Of a file with several
    channels the first is taken.

    Args:
        corpus: the speech.
        count: how many sounds.
        sample_rate: Hz, to which the files are resampled.
        num_samples: length.
        generator: of the draws.
        without: speakers who must not be heard, unless there are no others.

    Raises:
        InputError: if a file cannot be read or is silent.
    """
    speakers = [speaker for speaker in corpus.files if speaker not in without] or list(corpus.files)
    babble = np.zeros((count, num_samples))
    for sound in babble:
        for speaker in generator.choice(speakers, _VOICES):
            file = generator.choice(corpus.files[speaker])
            voice = resample(read_recording(corpus.folder / file), sample_rate).samples[0].astype(np.float64)
            voice = np.resize(np.roll(voice, -int(generator.integers(len(voice)))), num_samples)
            voice -= voice.mean()
            sound += voice / max(np.sqrt(np.mean(voice**2)), np.finfo(np.float32).tiny)
    return babble / np.sqrt(np.mean(babble**2, axis=1, keepdims=True))
