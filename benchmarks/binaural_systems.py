"""The systems of the binaural benchmark, by name, with their settings, and what each of them finds."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from binaural_heads import CalibrationSetting, calibration_directions, digest, is_level, numbers_of_pieces, thinned
from jaxtyping import Float
from systems import System

import vbss
from vbss.audio import InterauralCues, Recording
from vbss.binaural import BinauralLocalization, BinauralSeparation, Calibration
from vbss.scenes import BinauralScene, HeadResponses

_NOT_USED = ("cli", "plots", "check", "counting.py", "export.py")  # of vbss: their text is no part of an identity
_PACKAGES = ("numpy", "scipy", "soxr", "jax", "jaxlib", "equinox", "numpyro", "vbss")


class Found(NamedTuple):
    """What a system found; `None` is what it does not look for.

    Attributes:
        azimuths: of the sources, rad, positive on the left.
        elevations: rad.
        laterals: angle to the median plane, rad: what a delay between the ears tells without knowing the elevation.
        images: each source at both ears.
        delays: of the sources between the ears, s, in the laterals' order, where these follow from them.
    """

    azimuths: Float[np.ndarray, " sources"] | None = None
    elevations: Float[np.ndarray, " sources"] | None = None
    laterals: Float[np.ndarray, " sources"] | None = None
    images: Float[np.ndarray, "sources 2 samples"] | None = None
    delays: Float[np.ndarray, " sources"] | None = None


@dataclass(frozen=True)
class BinauralSystem:
    """A way to localise and separate.

    Attributes:
        title: in the report.
        settings: keyword arguments of `vbss.separate_binaural`; of an oracle, the `mask` of `ideal_masks`.
        calibration: how its head is learnt; `None` if it needs none.
        knows_truth: is an oracle, which does not localise.
        is_handed_over: is another system as far as directions go, whose sounds are a sum model's.
        is_for_rooms: is a row only where all directions are level with the ears, as of loudspeakers in a room.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    calibration: CalibrationSetting | None = None
    knows_truth: bool = False
    is_handed_over: bool = False
    is_for_rooms: bool = False


SYSTEMS = {
    "vessl-ild-paper": BinauralSystem(
        "VESSL, level, as published", {"model": "vessl", "vessl": "paper"}, CalibrationSetting(False, is_growing=True)
    ),
    "vessl-ild": BinauralSystem("VESSL, level", {"model": "vessl"}, CalibrationSetting(False)),
    "vessl-ild-sparse": BinauralSystem(
        "VESSL, level, calibrated every 8°", {"model": "vessl"}, CalibrationSetting(False, spacing=8.0)
    ),
    "vessl": BinauralSystem("VESSL", {"model": "vessl"}, CalibrationSetting()),
    "vessl-room": BinauralSystem(
        "VESSL, for rooms", {"model": "vessl", "reverberant": True}, CalibrationSetting(), is_for_rooms=True
    ),
    "vessl+nmf": BinauralSystem(
        "VESSL and sum model", {"model": "vessl+nmf"}, CalibrationSetting(), is_handed_over=True
    ),
    "messl": BinauralSystem("MESSL", {"model": "messl", "has_garbage": False, "pseudo_count": 1e-3}),
    "messl-g": BinauralSystem("MESSL-G", {"model": "messl", "pseudo_count": 1e-3}),
    "messl-g-prior": BinauralSystem("MESSL-G, vbss's prior", {"model": "messl", "pseudo_count": 1.0}),
    "messl-g+nmf": BinauralSystem(
        "MESSL-G, vbss's prior, and sum model", {"model": "messl+nmf", "pseudo_count": 1.0}, is_handed_over=True
    ),
    "mixture": BinauralSystem("mixture", {"mask": "none"}, knows_truth=True),
    "ideal-binary-mask": BinauralSystem("ideal binary mask", {"mask": "binary"}, knows_truth=True),
    "ideal-ratio-mask": BinauralSystem("ideal ratio mask", {"mask": "ratio"}, knows_truth=True),
}


@dataclass(frozen=True)
class Row:
    """A system with the head that it knows: a row of the tables.

    Attributes:
        name: of its records: the system's, and `@` with the label of the head set if that is not the scenes' own.
        system: what is run.
        heads: what it is calibrated by, if anything.
        label: of another head set than the scenes'.
    """

    name: str
    system: BinauralSystem
    heads: HeadResponses | None = None
    label: str = ""

    @property
    def title(self) -> str:
        return self.system.title + (f", calibrated by {self.label}" if self.label else "")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that a result depends on but the scene, for JSON; as it was when first asked for."""
        known = System(self.system.title, separate, self.system.settings, _PACKAGES, _sources()).identity()
        if self.heads is None or self.system.calibration is None:
            return known
        setting = self.system.calibration
        learnt = {"setting": asdict(setting), "pieces": numbers_of_pieces(self.heads, setting)}
        return known | {"calibration": {**learnt, "heads": digest(self.heads)}}


def rows(
    names: list[str], heads: HeadResponses, others: dict[str, HeadResponses], is_own: bool, num_sources: int
) -> list[Row]:
    """The rows of scenes of `heads`: each system that needs a calibration once for each head set that it may have.

    Args:
        names: of the systems.
        heads: the scenes' head set, all parts.
        others: other head sets, by their label.
        is_own: whether a part of `heads` calibrates, too.
        num_sources: of the scenes; a single source is only localised.
    """
    made = []
    for name in names:
        system = SYSTEMS[name]
        if num_sources == 1 and (system.knows_truth or system.is_handed_over):
            continue
        if system.is_for_rooms and not is_level(heads):
            continue
        if system.calibration is None:
            made.append(Row(name, system))
            continue
        spacing = system.calibration.spacing
        if is_own:
            made.append(Row(name, system, thinned(calibration_directions(heads), spacing)))
        made += [
            Row(f"{name}@{label}", system, thinned(calibration_directions(heads, other), spacing), label)
            for label, other in others.items()
        ]
    return made


def _sources() -> tuple[str, ...]:
    entries = sorted(Path(vbss.__file__).parent.iterdir())
    is_text = [entry.suffix == ".py" or (entry.is_dir() and entry.name != "__pycache__") for entry in entries]
    return tuple(e.name for e, is_source in zip(entries, is_text, strict=True) if is_source and e.name not in _NOT_USED)


def separate(system: BinauralSystem, scene: BinauralScene, calibration: Calibration | None) -> Found:
    """What a system finds in a scene."""
    if system.knows_truth:
        return Found(images=ideally_masked(scene, **system.settings))
    recording = Recording(scene.mixture, scene.sample_rate)
    count = len(scene.images)
    found: BinauralLocalization
    if count == 1:
        found = vbss.localize_binaural(recording, count, calibration, **system.settings)
    else:
        found = vbss.separate_binaural(recording, count, calibration, **system.settings)
    images = found.images if isinstance(found, BinauralSeparation) else None
    if calibration is None:  # the azimuth as if the elevation was 0: in truth the lateral angle
        return Found(laterals=found.azimuths, images=images, delays=found.delays)
    elevations = np.zeros(count) if found.elevations is None else found.elevations
    laterals = np.arcsin(np.sin(found.azimuths) * np.cos(elevations))
    return Found(found.azimuths, found.elevations, laterals, images)


def ideally_masked(scene: BinauralScene, mask: str) -> Float[np.ndarray, "sources 2 samples"]:
    """Both ears of the mixture times one mask that is made of the images' powers, those of the ears added up.

    The mask is "binary", a bin for the source that is loudest there, "ratio", in proportion to the magnitudes, or
    "none", for the mixture itself.
    """
    if mask == "none":
        return np.repeat(scene.mixture[None], len(scene.images), axis=0)
    stft = InterauralCues(sample_rate=scene.sample_rate).stft
    images = np.asarray(stft.forward(jnp.asarray(scene.images, jnp.float32)))
    mixture = np.asarray(stft.forward(jnp.asarray(scene.mixture, jnp.float32)))
    magnitudes = np.sqrt((np.abs(images) ** 2).sum(1, keepdims=True))
    if mask == "binary":
        masks = magnitudes.argmax(0)[None] == np.arange(len(images)).reshape(-1, 1, 1, 1)
    else:
        masks = magnitudes / np.maximum(magnitudes.sum(0, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(stft.inverse(jnp.asarray(mixture * masks), scene.mixture.shape[1]))
