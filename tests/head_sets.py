"""A head as simple as can be, whose responses are known, for tests."""

import numpy as np

SAMPLE_RATE = 8000
RADIUS = 0.0875  # m
TAPS = 64
_HALF = 20  # taps that the interpolation takes to either side


def rigid_responses(azimuths, elevations, sample_rate=SAMPLE_RATE):
    """Responses to two ears of directions (degrees, counter-clockwise), `(directions, 2, taps)`.

    The left ear hears a direction earlier by 2 r y / c, if y is how far on the left it is, and louder by 10 y dB. The
    delays are fractions of samples, by band-limited interpolation.
    """
    azimuths, elevations = np.radians(azimuths), np.radians(elevations)
    lateral = np.sin(azimuths) * np.cos(elevations)
    sides = np.stack([lateral, -lateral], axis=1)
    since = np.arange(TAPS) - (TAPS / 2 - sides[..., None] * RADIUS / 343 * sample_rate)
    shape = np.sinc(since) * np.where(np.abs(since) < _HALF, np.cos(np.pi / 2 * since / _HALF) ** 2, 0)
    return 10 ** (sides[..., None] * 5 / 20) * shape


def grid(step=30, elevations=(-30, 0, 30)):
    """Azimuths from 0 up to 360 and elevations, degrees."""
    azimuths, heights = np.meshgrid(np.arange(0, 360, step), elevations, indexing="ij")
    return azimuths.ravel().astype(float), heights.ravel().astype(float)
