"""A network that was hardly trained, on two voices in small rooms, and what it heard."""

import pytest
from four_speakers import write_speakers

from vbss import TrainingSettings, train_separator
from vbss.audio import STFT, read_microphone_positions
from vbss.scenes import Condition, SpeechCorpus
from vbss.training import SimulatedMixtures

CONDITION = Condition(seconds=1.0)
TRANSFORM = STFT.init(8000, 0.032, 0.016)


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    return write_speakers(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="session")
def mixtures(speech, tmp_path_factory):
    options = {"parts": 2, "stft": TRANSFORM, "cache": tmp_path_factory.mktemp("cache")}
    corpus = SpeechCorpus.read(speech)
    return (SimulatedMixtures(corpus, CONDITION, count, seed=seed, **options) for seed, count in ((0, 4), (1, 1)))


@pytest.fixture(scope="session")
def training(mixtures):
    positions = read_microphone_positions(CONDITION.microphones)
    settings = TrainingSettings(batch_size=2, max_epochs=2)
    return train_separator(*mixtures, positions, hidden_size=4, num_layers=1, settings=settings)
