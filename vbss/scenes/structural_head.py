"""A head made of formulas, for trying things out without measured responses."""

import numpy as np
from jaxtyping import Float

from vbss.audio.files import check_sample_rate
from vbss.scenes.heads import HeadResponses

_RADIUS = 0.0875  # m
_SPEED = 343.0  # m/s
_LEAST_SHADOW, _DARKEST = 0.1, np.radians(150.0)  # gain of high frequencies at the darkest angle to the ear
_ECHO_GAINS = np.array([0.5, -1.0, 0.5, -0.25, 0.25])
_ECHO_SWINGS = np.array([1.0, 5.0, 5.0, 5.0, 5.0]) / 44100  # s
_ECHO_OFFSETS = np.array([2.0, 4.0, 7.0, 11.0, 13.0]) / 44100  # s
_ECHO_RATES = np.array([[1.0, 0.5, 0.5, 0.5, 0.5], [0.85, 0.55, 0.35, 0.5, 0.45]])  # of the left and the right ear
_BEFORE = 0.001  # s before the sound arrives at the head's centre
_SECONDS = 0.008  # of a response


def structural_head(
    azimuths: Float[np.ndarray, " directions"],
    elevations: Float[np.ndarray, " directions"],
    sample_rate: int | np.integer = 16000,
) -> HeadResponses:
    """Responses of a sphere with two outer ears that differ a little, so that they tell heights apart.

    Source: C. P. Brown and R. O. Duda, "A structural model for binaural sound synthesis" (1998): the delay around a
    sphere, a first-order filter for its shadow, and five echoes of the outer ear whose delays follow the elevation.

    Args:
        azimuths: rad, counter-clockwise from the front.
        elevations: rad, positive above.
        sample_rate: Hz.
    """
    sample_rate = check_sample_rate(sample_rate)
    num_taps = round(_SECONDS * sample_rate)
    omega = 2 * np.pi * np.fft.rfftfreq(num_taps, 1 / sample_rate)[None]
    lateral = np.arcsin(np.clip(np.sin(azimuths) * np.cos(elevations), -1, 1))[:, None]
    corner = 2 * _SPEED / _RADIUS
    spectra = []
    for side, rates in zip((1, -1), _ECHO_RATES, strict=True):
        incidence = np.pi / 2 - side * lateral  # the angle between the direction and the ear
        near = incidence < np.pi / 2
        delay = _RADIUS / _SPEED * np.where(near, -np.cos(incidence), incidence - np.pi / 2)
        alpha = 1 + _LEAST_SHADOW / 2 + (1 - _LEAST_SHADOW / 2) * np.cos(incidence / _DARKEST * np.pi)
        shadow = (1 + 1j * alpha * omega / corner / 2) / (1 + 1j * omega / corner / 2)
        swing = np.cos(azimuths / 2)[:, None] * np.sin(rates * (np.pi / 2 - elevations[:, None]))
        echoes = _ECHO_SWINGS * swing + _ECHO_OFFSETS
        ear = 1 + (_ECHO_GAINS * np.exp(-1j * omega[..., None] * echoes[:, None])).sum(-1)
        spectra.append(shadow * ear * np.exp(-1j * omega * (_BEFORE + delay)))
    responses = np.fft.irfft(np.stack(spectra, 1), num_taps)
    return HeadResponses(responses, azimuths, elevations, sample_rate, "structural head")
