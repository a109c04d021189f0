"""How near an estimate comes to the truth."""

import numpy as np
from observation import Estimate
from scipy.optimize import linear_sum_assignment

from vbss.metrics import angular_error, separation_ratios
from vbss.scenes import Scene


def quality(scene: Scene, estimate: Estimate) -> dict[str, list[float]]:
    """Ratios of the sources (`sdr`, `sir`, `si_sdr`, dB) and `direction_errors` (degrees), as far as there are any.

    Sources are compared with the images at microphone 0; sources and directions each by their own best permutation.
    """
    found = {}
    if estimate.sources is not None:
        ratios = separation_ratios(scene.images[:, 0], estimate.sources)
        found |= {name: getattr(ratios, name).tolist() for name in ("sdr", "sir", "si_sdr")}
    if estimate.directions is not None:
        errors = np.degrees(angular_error(scene.azimuths[:, None], estimate.directions[None]))
        found["direction_errors"] = errors[linear_sum_assignment(errors)].tolist()
    return found
