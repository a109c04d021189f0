"""A small folder of speech-like sound, made once."""

import pytest

from vbss.audio import write_recording
from vbss.scenes import Speaker, speech_like


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory):
    """Four speakers of two files each in the layout of LibriSpeech, at 8 kHz."""
    folder = tmp_path_factory.mktemp("speech")
    for number in range(4):
        speaker = Speaker(100.0 + 40 * number, 1.0 + 0.06 * number, 4.0 + 0.4 * number)
        chapter = folder / f"p{number}" / "chapter"
        chapter.mkdir(parents=True)
        for take in range(2):
            sound = speech_like(speaker, 2.5, 8000, seed=10 * number + take)
            write_recording(chapter / f"take_{take}.flac", sound, 8000)
    return folder
