"""What a report says of a recording of two ears."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbss.audio import Recording
    from vbss.binaural import BinauralLocalization
    from vbss.models.affine_pieces import PiecewisePosterior

_LEAST_WEIGHT = 1e-3  # of a Gaussian that is reported


def binaural_report(files: list[str], recording: "Recording", result: "BinauralLocalization") -> dict[str, Any]:
    """What is reported of a localisation, and of a separation too; angles in degrees, azimuths positive on the left."""
    import numpy as np

    from vbss.binaural import BinauralSeparation

    channels, samples = recording.samples.shape
    number = len(result.azimuths)
    report = {
        "schema_version": 4,
        "vbss_version": version("vbss"),
        "model": result.model,
        "settings": {name: _plain(value) for name, value in vars(result.settings).items() if name != "model"},
        "cues": dict(vars(result.cues)),
        "warnings": list(result.warnings),
        "inference": [
            {
                "stage": stage,
                "model": type(solution.model).__name__,
                "status": solution.status.name,
                "num_steps": int(solution.num_steps),
                "elbo": np.asarray(solution.elbo, float).tolist(),
            }
            for stage, solution in result.solutions.items()
        ],
        "input": {
            "files": files,
            "sample_rate": recording.sample_rate,
            "channels": channels,
            "seconds": samples / recording.sample_rate,
        },
        "sources": [
            {
                "azimuth_degrees": azimuth,
                "elevation_degrees": elevation,
                "position_posterior": posterior,
                "delay_seconds": delay,
                "delay_posterior": delays,
            }
            for azimuth, elevation, posterior, delay, delays in zip(
                _degrees(result.azimuths),
                [None] * number if result.elevations is None else _degrees(result.elevations),
                [None] * number if result.positions is None else _gaussians(result.positions),
                [None] * number if result.delays is None else map(float, result.delays),
                [None] * number if result.delay_probs is None else _delays(result),
                strict=True,
            )
        ],
        "seconds": result.seconds,
    }
    if isinstance(result, BinauralSeparation):
        for place, source in enumerate(report["sources"]):
            ratio = None if result.expected_sdr is None else float(result.expected_sdr[place])
            source |= {"file": f"source_{place + 1}.wav", "expected_sdr_db": ratio}
            source["energy_share"] = float(result.energy_shares[place])
    return report


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)


def _degrees(angles: Iterable[float]) -> list[float]:
    import numpy as np

    return [round(float(np.degrees(angle)), 6) for angle in angles]


def _gaussians(positions: "PiecewisePosterior") -> list[dict[str, Any]]:
    """Each source's mixture of Gaussians over (azimuth, elevation), heaviest first; light ones are left out."""
    import numpy as np

    logits = np.asarray(positions.logits, float)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    means, covariances = np.asarray(positions.means, float), np.linalg.inv(np.asarray(positions.precisions, float))
    described = []
    for of_source, mean, covariance in zip(weights, means, covariances, strict=True):
        order = [k for k in np.argsort(-of_source, kind="stable") if of_source[k] >= _LEAST_WEIGHT]
        described.append(
            {
                "weights": of_source[order].tolist(),
                "means_degrees": np.degrees(mean[order]).tolist(),
                "covariances_degrees2": (np.degrees(1) ** 2 * covariance[order]).tolist(),
            }
        )
    return described


def _delays(result: "BinauralLocalization") -> list[dict[str, Any]]:
    assert result.delay_grid is not None and result.delay_probs is not None
    grid = result.delay_grid.tolist()
    return [{"delays_seconds": grid, "probabilities": probs.tolist()} for probs in result.delay_probs]
