"""Errors of directions."""

import numpy as np
from jaxtyping import Float


def angular_error(a: Float[np.ndarray, "..."] | float, b: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """Angle between two directions the short way round, rad, in [0, pi].

    **Arguments:** `a`, `b`: azimuths, rad, of shapes that broadcast; whole turns do not matter.

    **Returns:** an array of the broadcast shape.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return np.asarray(np.abs(np.angle(np.exp(1j * difference))))
