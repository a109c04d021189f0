"""A folder of speech of two low and two high voices, 3 s each at 8 kHz, for tests."""

import numpy as np

from vbss.audio import write_recording
from vbss.scenes import HIGH_VOICE, LOW_VOICE, speech_like


def write_speakers(folder):
    """Fill the folder, which is returned."""
    for number, voice in enumerate((LOW_VOICE, HIGH_VOICE, LOW_VOICE, HIGH_VOICE)):
        (folder / f"speaker{number}").mkdir()
        sound = speech_like(voice, 3.0, 8000, seed=number).astype(np.float32)
        write_recording(folder / f"speaker{number}" / "speech.wav", sound, 8000)
    return folder
