"""The model of speech that comes with vbss."""

from functools import cache
from importlib.resources import as_file, files
from typing import Any

from vbss.enhancement.trained import TrainedSpeech
from vbss.storage import load

_FILE = "speech_16khz.vbss"


@cache
def pretrained_speech() -> TrainedSpeech:
    """A small one, for 16 kHz: frame by frame, 32 codes, a hidden layer of 128.

    It was trained on 75 minutes of English speech of 86 speakers of LibriSpeech and VCTK (both CC BY 4.0;
    `vbss/pretrained/README.md` has recipe and licence).
    """
    with as_file(files("vbss") / "pretrained" / _FILE) as path:
        found: Any = load(path)
    return found
