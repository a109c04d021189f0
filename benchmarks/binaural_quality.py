"""How near what was found in a binaural scene comes to the truth."""

import hashlib
from typing import Any

import numpy as np
from binaural_systems import Found
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from vbss.metrics import angular_error, pairwise_ratios
from vbss.scenes import BinauralScene


def scene_fingerprint(scene: BinauralScene) -> str:
    """Of all of a scene that a result depends on."""
    digest = hashlib.sha256(str(scene.sample_rate).encode())
    for array in (scene.mixture, scene.images, scene.azimuths, scene.elevations):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def binaural_quality(scene: BinauralScene, found: Found) -> dict[str, Any]:
    """Errors and ratios of every source, in the scene's order, as far as there are any.

    - `great_circle_errors`, `azimuth_errors`, `elevation_errors`, degrees: sources are matched so that the sum of the
      first is smallest. Where no elevation is sought, it is taken as 0, and there is no error of it.
    - `lateral_errors`, degrees: of the angle to the median plane, matched by themselves; beside those that follow from
      `delays` (s), these and the `true_laterals` (degrees), from which the law between them can be read.
    - `sdr` and `sir`, dB: of BSS Eval with filters of 512 taps, of the image at each ear, the mean of both. Sources are
      matched for both ears together so that the sum of the SDR is highest. None of a single source.
    """
    errors: dict[str, Any] = {}
    if found.azimuths is not None:
        elevations = np.zeros_like(found.azimuths) if found.elevations is None else found.elevations
        distances = _great_circle(scene.azimuths, scene.elevations, found.azimuths, elevations)
        rows, order = linear_sum_assignment(distances)
        errors["great_circle_errors"] = np.degrees(distances[rows, order]).tolist()
        errors["azimuth_errors"] = np.degrees(angular_error(scene.azimuths, found.azimuths[order])).tolist()
        if found.elevations is not None:
            errors["elevation_errors"] = np.degrees(np.abs(scene.elevations - elevations[order])).tolist()
    if found.laterals is not None:
        laterals = np.arcsin(np.clip(np.sin(scene.azimuths) * np.cos(scene.elevations), -1, 1))
        distances = np.abs(laterals[:, None] - found.laterals[None])
        rows, order = linear_sum_assignment(distances)
        errors["lateral_errors"] = np.degrees(distances[rows, order]).tolist()
        if found.delays is not None:
            errors |= {"delays": found.delays[order].tolist(), "true_laterals": np.degrees(laterals).tolist()}
    if found.images is not None and len(scene.images) > 1:
        sdr, sir = _ratios_of_ears(scene.images, found.images)
        matched = linear_sum_assignment(-sdr)
        errors |= {"sdr": sdr[matched].tolist(), "sir": sir[matched].tolist()}
    return errors


def _great_circle(
    azimuths: Float[np.ndarray, " sources"],
    elevations: Float[np.ndarray, " sources"],
    found_azimuths: Float[np.ndarray, " sources"],
    found_elevations: Float[np.ndarray, " sources"],
) -> Float[np.ndarray, "sources sources"]:
    """Angles between every true and every found direction, rad, by the haversine: exact for small ones, too."""
    around = angular_error(azimuths[:, None], found_azimuths[None])
    above = elevations[:, None] - found_elevations[None]
    both = np.cos(elevations)[:, None] * np.cos(found_elevations)[None]
    return 2 * np.arcsin(np.sqrt(np.clip(np.sin(above / 2) ** 2 + both * np.sin(around / 2) ** 2, 0, 1)))


def _ratios_of_ears(
    references: Float[np.ndarray, "sources 2 samples"], estimates: Float[np.ndarray, "sources 2 samples"]
) -> tuple[Float[np.ndarray, "sources sources"], Float[np.ndarray, "sources sources"]]:
    """SDR and SIR of every estimate as every source, dB, means over the ears."""
    ratios = [pairwise_ratios(references[:, ear], estimates[:, ear]) for ear in range(2)]
    sdr, sir = np.mean(ratios, axis=0)
    return sdr, sir
