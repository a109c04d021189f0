"""What a system is given and what it gives back."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vbss.scenes import Scene


class Observation(NamedTuple):
    """What a blind system may know.

    Attributes:
        mixture: what the microphones record.
        sample_rate: Hz.
        microphone_positions: m, relative to the array's centre.
        num_sources: how many sources there are.
    """

    mixture: Float[np.ndarray, "microphones samples"]
    sample_rate: int
    microphone_positions: Float[np.ndarray, "microphones 3"]
    num_sources: int


class Estimate(NamedTuple):
    """What a system found; `None` is what it does not look for.

    Attributes:
        sources: as microphone 0 hears them, in any order; if there are more than sources, those that match best count.
        directions: azimuths, rad, counter-clockwise from +x, in any order.
    """

    sources: Float[np.ndarray, "estimates samples"] | None = None
    directions: Float[np.ndarray, " sources"] | None = None


def observe(scene: Scene) -> Observation:
    """What of a scene a blind system may know."""
    return Observation(scene.mixture, scene.sample_rate, scene.microphone_positions, len(scene.images))


def separate_or_give_up(separate: Callable[[Observation], Estimate], observation: Observation) -> tuple[Estimate, bool]:
    """What a system found, and whether it failed; if so, every source is estimated by the mixture itself.

    A system fails if it comes upon a singular matrix or gives sounds that are not finite.
    """
    try:
        estimate = separate(observation)
    except np.linalg.LinAlgError:
        failed = True
    else:
        failed = estimate.sources is not None and not np.all(np.isfinite(estimate.sources))
    if failed:
        return Estimate(np.repeat(observation.mixture[:1], observation.num_sources, axis=0)), True
    return estimate, False
