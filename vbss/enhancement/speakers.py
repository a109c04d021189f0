"""Training of what one speaker sounds like, alone and among others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vbss.enhancement.trained import TrainedSpeech
from vbss.enhancement.training import SETTINGS, SpeechTraining, train_on_mixtures, train_speech
from vbss.errors import InputError
from vbss.inference import Status
from vbss.training import SpeechSpectra, TrainingSettings, VoiceMixtures
from vbss.training.checkpoint import CHECKPOINT
from vbss.training.settings import settings_or

ALONE = "alone"  # the first training's folder in that of the whole
_HELD_OUT = 10  # one stretch of so many is kept for validation


def train_speaker(
    voice: SpeechSpectra,
    others: SpeechSpectra,
    *,
    start: TrainedSpeech | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int, float], Any] | None = None,
    **options: Any,
) -> SpeechTraining:
    """Train what one speaker's voice may be, and an encoder that hears it among others, for `vbss.separate_voices`.

    First `train_speech` learns the voice from the speaker alone; then `train_on_mixtures` teaches the encoder to read
    the voice from mixtures with others, from 5 dB below to 5 dB above them. The last tenth of the stretches of each are
    kept for validation. With a folder, more epochs than an earlier call had are those of the second training.

    Args:
        voice: the speaker's speech.
        others: that of those who may speak at the same time, or of any others.
        start: networks to go on from, best `vbss.pretrained_speech()`: what was recorded of one speaker is little.
        settings, folder, progress: as for `train_speech`; the first training has a folder in that folder.
        options: of `train_speech`, for the first training.

    Raises:
        InputError: as those do, or if there are fewer than two stretches of either.
    """
    for name, speech in (("voice", voice), ("others", others)):
        if not isinstance(speech, SpeechSpectra):
            raise InputError(f"{name} must be SpeechSpectra, got {type(speech).__name__}")
    settings = settings_or(SETTINGS, settings)
    (heard, kept), (heard_others, kept_others) = voice.held_out(_HELD_OUT), others.held_out(_HELD_OUT)
    told: dict[str, Any] = {"settings": settings, "progress": progress}
    within = None if folder is None else Path(folder) / ALONE
    first = dict(told)
    if folder is not None and (Path(folder) / CHECKPOINT).exists():  # the second began with what the first has found
        first["settings"] = replace(settings, max_epochs=0)
    alone = train_speech(heard, kept, start=start, folder=within, **first, **options)
    if alone.training.status in (Status.interrupted, Status.nonfinite):
        return alone
    corpora = (
        VoiceMixtures(heard, heard_others, seed=settings.seed),
        VoiceMixtures(kept, kept_others, seed=settings.seed + 1),
    )
    return train_on_mixtures(alone.speech, *corpora, folder=folder, **told)
