"""The systems that are compared, by name, with their settings."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import peers
from observation import Estimate, Observation

import vbss
from vbss.audio import Recording
from vbss.separation import separate

_WIENER = ("audio/filters.py", "audio/stft.py")  # what of vbss the oracles and the cACGMM use


def vbss_separate(observation: Observation, **settings: Any) -> Estimate:
    """`vbss.separate` with keyword arguments `settings`."""
    recording = Recording(observation.mixture.astype(np.float32), observation.sample_rate)
    result = separate(recording, observation.microphone_positions, observation.num_sources, **settings)
    return Estimate(result.sources, result.directions)


def vbss_blind(observation: Observation, **settings: Any) -> Estimate:
    """The same, not told where the microphones are."""
    recording = Recording(observation.mixture.astype(np.float32), observation.sample_rate)
    return Estimate(separate(recording, None, observation.num_sources, **settings).sources)


@dataclass(frozen=True)
class System:
    """A way to separate or to localise.

    Attributes:
        title: in the report.
        separate: from an `Observation`, or from a `Scene` if `knows_truth`, and `settings` as keyword arguments.
        settings: part of the system's identity.
        packages: imported before the clock starts; their versions are part of the system's identity.
        sources: files or folders of vbss whose text is part of the system's identity.
        knows_truth: is an oracle.
        compiles: every scene is separated twice, as the first call compiles for the scene's shape.
    """

    title: str
    separate: Callable[..., Estimate]
    settings: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ("numpy", "scipy")
    sources: tuple[str, ...] = ()
    knows_truth: bool = False
    compiles: bool = False

    def identity(self) -> dict[str, Any]:
        """All that a result depends on but the scene, for JSON."""
        digest = hashlib.sha256()
        for source in self.sources:
            path = Path(vbss.__file__).parent / source
            for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
                digest.update(file.read_bytes())
        return {
            "settings": self.settings,
            "versions": {package: _version(package) for package in self.packages},
            "sources": digest.hexdigest() if self.sources else None,
        }


def _version(package: str) -> str | None:
    """The version of an installed package; a system whose package is missing has an identity, but cannot run."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _vbss(title: str, separate: Callable[..., Estimate] = vbss_separate, **settings: Any) -> System:
    packages = ("numpy", "jax", "jaxlib", "equinox", "numpyro", "vbss")
    return System(title, separate, settings, packages, sources=(".",), compiles=True)


def _pyroomacoustics(title: str, separate: Callable[..., Estimate], **settings: Any) -> System:
    return System(title, separate, settings, packages=("numpy", "scipy", "pyroomacoustics"))


def _oracle(title: str, separate: Callable[..., Estimate], **settings: Any) -> System:
    return System(title, separate, settings, ("numpy", "jax"), sources=_WIENER, knows_truth=True)


# Settings of the peers: chosen on scenes of the development speakers by peer_settings.py, see RESULTS.md.
SYSTEMS = {
    "vbss": _vbss("vbss"),
    "vbss-float64": _vbss("vbss, float64", precision="float64"),
    "vbss-cgmm": _vbss("vbss, mixture model and Wiener filter", model="cgmm"),
    "vbss-fast": _vbss("vbss, FastMNMF as sum model", model="cgmm+fastmnmf"),
    "vbss-blind": _vbss("vbss, array unknown", vbss_blind),
    "auxiva-determined": _pyroomacoustics(
        "AuxIVA, a microphone for each source", peers.auxiva_determined, window=0.256, model="gauss", iterations=50
    ),
    "overiva": _pyroomacoustics(
        "OverIVA", peers.auxiva, window=0.128, model="gauss", iterations=100, outputs="sources"
    ),
    "auxiva": _pyroomacoustics(
        "AuxIVA, best outputs", peers.auxiva, window=0.128, model="gauss", iterations=100, outputs="microphones"
    ),
    "auxiva-clustered": _pyroomacoustics(
        "AuxIVA+, clustered outputs", peers.auxiva_clustered, window=0.128, model="gauss", iterations=100
    ),
    "ilrma": _pyroomacoustics("ILRMA, best outputs", peers.ilrma, window=0.256, components=4, iterations=50),
    "fastmnmf2": _pyroomacoustics(
        "FastMNMF2", peers.fastmnmf2, window=0.256, components=16, iterations=100, spare_sources=0
    ),
    "fastmnmf2-spare": _pyroomacoustics(
        "FastMNMF2, one more source, best outputs",
        peers.fastmnmf2,
        window=0.256,
        components=16,
        iterations=100,
        spare_sources=1,
    ),
    "cacgmm": System(
        "cACGMM and Wiener filter",
        peers.cacgmm,
        {"window": 0.128, "iterations": 50, "alignment": "amplitude_score", "sweeps": 10},
        packages=("numpy", "scipy", "jax", "ssspy"),
        sources=_WIENER,
    ),
    "srp-phat": _pyroomacoustics(
        "SRP-PHAT", peers.localise, algorithm="SRP", window=0.064, lowest=1000.0, highest=3800.0
    ),
    "norm-music": _pyroomacoustics(
        "NormMUSIC", peers.localise, algorithm="NormMUSIC", window=0.064, lowest=200.0, highest=3800.0
    ),
    "mixture": _oracle("mixture", oracles.untouched),
    "ideal-binary-mask": _oracle("ideal binary mask", oracles.ideal_mask, mask="binary", output="masked"),
    "ideal-ratio-mask": _oracle("ideal ratio mask", oracles.ideal_mask, mask="ratio", output="masked"),
    "ideal-binary-wiener": _oracle(
        "ideal binary mask and Wiener filter", oracles.ideal_mask, mask="binary", output="wiener"
    ),
    "ideal-ratio-wiener": _oracle(
        "ideal ratio mask and Wiener filter", oracles.ideal_mask, mask="ratio", output="wiener"
    ),
}
