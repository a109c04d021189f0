import numpy as np
import pytest

from vbss.audio import STFT, Recording, azimuth_grid
from vbss.separation import Separation
from vbss.settings import Settings

SAMPLE_RATE = 8000


class KnownSeparation(Separation):
    """A separation of given arrays, without an inference."""

    def __init__(self, **fields):
        for name, value in fields.items():
            object.__setattr__(self, name, value)


@pytest.fixture
def known_separation():
    """A function: a recording of noises of decreasing level, and its separation into `num_sources`."""

    def make(num_sources, num_samples=SAMPLE_RATE, dtype="float32"):
        rng = np.random.default_rng(num_sources)
        sources = 0.1 ** np.arange(1, num_sources + 1)[:, None] * rng.standard_normal((num_sources, num_samples))
        recording = Recording(np.stack([sources.sum(0), 2 * sources.sum(0)]).astype(dtype), SAMPLE_RATE)
        stft = STFT.init(SAMPLE_RATE, Settings().window, Settings().hop)
        num_frames = -(-num_samples // stft.hop_length) + 1
        azimuths = azimuth_grid(72)
        posterior = np.eye(72)[3 + 12 * np.arange(num_sources)]
        separation = KnownSeparation(
            sources=sources.astype(dtype),
            sample_rate=SAMPLE_RATE,
            reference_microphone=0,
            settings=Settings(),
            masks=rng.dirichlet(np.ones(num_sources), (num_frames, stft.window_length // 2 + 1)).astype(dtype),
            azimuths=azimuths,
            direction_posterior=posterior.astype(dtype),
            energy_shares=np.full(num_sources, 1 / num_sources),
            expected_sdr=None,
        )
        return recording, separation

    return make
