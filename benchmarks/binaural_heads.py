"""Head sets of the binaural benchmark: the directions that scenes are drawn from, and what heads are learnt from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vbss
from vbss.audio import InterauralCues
from vbss.binaural import Calibration
from vbss.scenes import HeadResponses

AZIMUTHS = (-80.0, 80.0)  # degrees, of scenes and calibrations
ELEVATIONS = (-40.0, 60.0)
_LEVEL = 1e-3  # rad, within which a direction is level with the ears
_DIRECTIONS_PER_PIECE = 4  # at least, of maps that grow in powers of two


@dataclass(frozen=True)
class CalibrationSetting:
    """How a system's head is learnt.

    Attributes:
        phase: whether phase differences are cues, too.
        is_growing: whether there are maps of 1, 2, 4, ... pieces up to `most_pieces`; otherwise there is one map, of
            `vbss.calibrate`'s own number of pieces.
        most_pieces: of growing maps; there are at least 4 directions for a piece.
        spacing: degrees, that directions are at least apart from each other; the others are left out.
    """

    phase: bool = True
    is_growing: bool = False
    most_pieces: int = 128
    spacing: float = 0.0


def named_path(text: str) -> tuple[str, Path]:
    """The parts of LABEL=PATH.

    Raises:
        ValueError: if it is nothing of the kind.
    """
    label, equals, path = text.partition("=")
    if not (label and equals and path) or any(sign in label for sign in "/@"):
        raise ValueError(f"{text!r} must be LABEL=PATH, with neither / nor @ in LABEL.")
    return label, Path(path)


def read_heads(path: Path) -> HeadResponses:
    """The directions of a head set in the benchmark's limits."""
    return HeadResponses.read(path).within(*(tuple(np.radians(limits)) for limits in (AZIMUTHS, ELEVATIONS)))


def is_level(heads: HeadResponses) -> bool:
    """Whether all directions are level with the ears."""
    return bool((np.abs(heads.elevations) <= _LEVEL).all())


def calibration_directions(heads: HeadResponses, other: HeadResponses | None = None) -> HeadResponses:
    """What scenes of `heads` are calibrated by: the directions for it of their own set or of an `other` one.

    If the scenes are level with the ears, so are these.
    """
    directions = (heads if other is None else other).split("calibration")
    return directions.take(np.abs(directions.elevations) <= _LEVEL) if is_level(heads) else directions


def thinned(heads: HeadResponses, spacing: float) -> HeadResponses:
    """Directions at least `spacing` degrees apart, as many as fit when they are taken in a random order."""
    if spacing == 0:
        return heads
    largest_cosine, vectors = np.cos(np.radians(spacing)) + 1e-9, heads.vectors
    chosen: list[int] = []
    for candidate in np.random.default_rng(0).permutation(len(heads)).tolist():
        if not chosen or (vectors[chosen] @ vectors[candidate]).max() <= largest_cosine:
            chosen.append(candidate)
    return heads.take(sorted(chosen))


def digest(heads: HeadResponses) -> str:
    """Of all of a head set that a calibration depends on."""
    found = hashlib.sha256(str(heads.sample_rate).encode())
    for array in (heads.responses, heads.azimuths, heads.elevations, heads.numbers):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class Calibrations:
    """Calibrations in a folder, each computed once.

    Attributes:
        folder: where they are; made when the first is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def of(
        self, heads: HeadResponses, setting: CalibrationSetting, sample_rate: int, identity: dict[str, Any]
    ) -> Calibration:
        """What is learnt from `heads`; `identity` is all that it depends on."""
        key = hashlib.sha256(repr((identity, sample_rate)).encode()).hexdigest()[:24]
        path = self.folder / f"{key}.vbss"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            cues = InterauralCues(sample_rate=sample_rate, phase=setting.phase)
            vbss.save(path, vbss.calibrate(heads, cues, num_pieces=numbers_of_pieces(heads, setting)))
        calibration = vbss.load(path)
        assert isinstance(calibration, Calibration)
        return calibration


def numbers_of_pieces(heads: HeadResponses, setting: CalibrationSetting) -> list[int] | None:
    """Of the maps that are learnt from `heads`; `None` for one map of `vbss.calibrate`'s own number."""
    if setting.is_growing:
        most = max(1, min(setting.most_pieces, len(heads) // _DIRECTIONS_PER_PIECE))
        return [2**level for level in range(most.bit_length())]
    return None
