"""Random directions that are not too near to each other."""

import numpy as np
from jaxtyping import Float

from vbss.errors import InputError

_ATTEMPTS = 200


def draw_azimuths(generator: np.random.Generator, count: int, smallest_angle: float) -> Float[np.ndarray, " count"]:
    """`count` azimuths in [-pi, pi), uniform among those at least `smallest_angle` (rad) apart from each other.

    What the angles between neighbours have above the smallest is uniform on the simplex: no draw is ever in vain.
    """
    gaps = smallest_angle + (2 * np.pi - count * smallest_angle) * generator.dirichlet(np.ones(count))
    azimuths = generator.uniform(-np.pi, np.pi) + np.cumsum(gaps)
    return (generator.permutation(azimuths) + np.pi) % (2 * np.pi) - np.pi


def choose_azimuths(
    generator: np.random.Generator, azimuths: list[float], count: int, smallest_angle: float
) -> list[float]:
    """`count` of the given azimuths at least `smallest_angle` apart from each other, all in degrees.

    Raises:
        InputError: if there are no such ones to be found.
    """
    for _ in range(_ATTEMPTS):
        chosen: list[float] = []
        for azimuth in generator.permutation(azimuths).tolist():
            if all(abs((azimuth - other + 180) % 360 - 180) >= smallest_angle for other in chosen):
                chosen.append(azimuth)
            if len(chosen) == count:
                return chosen
    raise InputError(
        f"smallest_angle of {smallest_angle} degrees: the responses have no {count} of their {len(azimuths)} azimuths "
        "so far apart."
    )
