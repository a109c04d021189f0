"""Two voices about a head made of formulas, at 8 kHz and short, for tests."""

import numpy as np

from vbss.audio import InterauralCues, Recording
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like, structural_head
from vbss.scenes.room import convolve

SAMPLE_RATE = 8000
CUES = InterauralCues(SAMPLE_RATE, window=0.032, hop=0.008)
AZIMUTHS = (35.0, -25.0)  # degrees, of the voices


def level_head():
    """Responses of directions around the front, all level with the ears."""
    azimuths = np.radians(np.arange(-90, 91, 5.0))
    return structural_head(azimuths, np.zeros_like(azimuths), SAMPLE_RATE)


def voices():
    """Each of two voices at both ears, float32, and what the ears record of them with a little noise."""
    directions = structural_head(np.radians(np.array(AZIMUTHS)), np.zeros(2), SAMPLE_RATE)
    spoken = [speech_like(voice, 1.0, SAMPLE_RATE, seed=seed) for seed, voice in ((1, LOW_VOICE), (2, HIGH_VOICE))]
    heard = np.concatenate(
        [convolve(voice[None], response[None]) for voice, response in zip(spoken, directions.responses, strict=True)]
    )
    images = (0.05 * heard / np.sqrt(np.mean(heard**2, axis=(1, 2), keepdims=True))).astype(np.float32)
    noise = 1e-4 * np.random.default_rng(0).standard_normal(images.shape[1:])
    return images, Recording(images.sum(0) + noise.astype(np.float32), SAMPLE_RATE)
