"""Sounds from known directions, heard by a small array without a room: as unlike speech as is needed to be quick."""

import numpy as np

from vbss.audio import read_microphone_positions

SAMPLE_RATE = 8000
POSITIONS = read_microphone_positions("circular:4:0.08")


def plane_waves(signals, azimuths):
    """Each signal as a periodic plane wave heard by the microphones, (sources, microphones, samples)."""
    num_samples = signals.shape[-1]
    omega = 2 * np.pi * np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE)
    towards = np.stack([np.cos(azimuths), np.sin(azimuths), np.zeros(len(azimuths))])
    advance = (POSITIONS @ towards).T / 343.0
    spectra = np.fft.rfft(signals)[:, None] * np.exp(1j * omega * advance[..., None])
    return np.fft.irfft(spectra, num_samples)


def bursts(seconds=2.0, seed=0, num_sources=2):
    """Noises that take turns, (sources, samples)."""
    rng = np.random.default_rng(seed)
    num_samples, num_turns = int(seconds * SAMPLE_RATE), round(10 * seconds) // num_sources * num_sources
    one_each = np.tile(np.eye(num_sources), (1, num_turns // num_sources))
    turns = one_each[:, rng.permutation(num_turns)]
    turns = np.repeat(turns, -(-num_samples // num_turns), axis=1)[:, :num_samples]
    return 0.1 * turns * rng.standard_normal((num_sources, num_samples))
