"""Who is who, from one block of a recording to the next."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from vbss.audio.geometry import azimuth_grid
from vbss.separation.doubts import POOR_SDR

_PREFERENCE = 0.1  # of the energies: what speaks for the order that the sources already have
_AUDIBLE = 1e-3  # of the loudest source's energy; a quieter one says nothing of where it is
_DISTINCT = np.radians(15)  # two sources that are nearer to each other may be one


def same_order(
    before: Float[np.ndarray, "sources samples"], after: Float[np.ndarray, "sources samples"]
) -> Int[np.ndarray, " sources"]:
    """Which source of `after` each source of `before` is, from the same stretch of sound separated twice.

    The assignment of the largest correlation, by energy: loud sources decide, and where hardly anything is heard, or
    two orders are about as good, the sources stay as they are.
    """
    correlation = before.astype(np.float64) @ after.astype(np.float64).T
    energy = np.sqrt(np.sum(np.square(before, dtype=np.float64)) * np.sum(np.square(after, dtype=np.float64)))
    preference = _PREFERENCE * energy / len(before) * np.eye(len(before))
    return linear_sum_assignment(-(correlation + preference))[1]


def carried(
    before: Float[np.ndarray, "sources ..."],
    found: Float[np.ndarray, "sources ..."],
    energies: Float[np.ndarray, " sources"],
    expected_sdr: Float[np.ndarray, " sources"] | None,
) -> Float[np.ndarray, "sources ..."]:
    """The places to start the next block from: those found, but for sources that are silent or unclear.

    Args:
        before: from which the block started.
        found: in the block (`vbss.separation.analysis.Located.places`); of another shape where channels failed in it.
        energies: of the sources in the block.
        expected_sdr: dB, if known.
    """
    if found.shape != before.shape:
        return before
    is_clear = np.isfinite(found).reshape(len(found), -1).all(1) & (energies > _AUDIBLE * energies.max())
    if expected_sdr is not None:
        is_clear &= expected_sdr >= POOR_SDR
    if found.ndim == 2:  # directions, all around the circle
        azimuths = azimuth_grid(found.shape[1])
        places = azimuths[np.argmax(np.where(is_clear[:, None], found, before), 1)]
        apart = np.abs(np.angle(np.exp(1j * (places[:, None] - places[None]))))
        np.fill_diagonal(apart, np.inf)
        is_clear &= (apart >= _DISTINCT).all(1)
    return np.where(is_clear.reshape(-1, *[1] * (found.ndim - 1)), found, before)


def places_at(
    places: Float[np.ndarray, "sources ..."], channels: Int[np.ndarray, " all"], left: Int[np.ndarray, " some"]
) -> Float[np.ndarray, "sources ..."]:
    """The places as some of the channels know them: directions as they are, of covariances these rows and columns."""
    if places.ndim == 2:
        return places
    kept = np.flatnonzero(np.isin(channels, left))
    return places[:, :, kept[:, None], kept[None]]
