"""What the localisation and separation of a binaural recording give."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vbss.audio import InterauralCues
from vbss.binaural.messl import MESSLResult
from vbss.binaural.settings import BinauralSettings
from vbss.inference import Solution
from vbss.models.affine_pieces import PiecewisePosterior


@dataclass(frozen=True)
class BinauralLocalization:
    """What `vbss.localize_binaural` found; sources are in order from the left to the right.

    Attributes:
        model: which was used.
        azimuths: of the sources, rad, counter-clockwise from the front: positive on the left. Without a calibration
            they follow from the delays, as if all sources were level with the ears, in front, and the head a sphere.
        elevations: rad; None where they are not known.
        positions: the posterior of the sources' (azimuth, elevation), or azimuths alone, rad; None without a
            calibration. It takes bins for independent and the map for exact, and so is far narrower than errors are.
        delays: of each source, s, by how much the left ear is earlier, and `delay_probs`, the probability of each of
            `delay_grid`; None with a calibration.
        masks: the probability that a source owns a bin of `cues`; they add up to at most one.
        cues: the analysis.
        solution: of the inference, with its status and its trace of the bound.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    model: str
    azimuths: Float[np.ndarray, " sources"]
    elevations: Float[np.ndarray, " sources"] | None
    positions: PiecewisePosterior | None
    delays: Float[np.ndarray, " sources"] | None
    delay_grid: Float[np.ndarray, " delays"] | None
    delay_probs: Float[np.ndarray, "sources delays"] | None
    masks: Float[np.ndarray, "frames f sources"]
    cues: InterauralCues
    solution: Solution | MESSLResult
    settings: BinauralSettings
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def solutions(self) -> dict[str, Solution | MESSLResult]:
        """Of every model that was fitted, by its stage."""
        return {"cue model": self.solution}


@dataclass(frozen=True)
class BinauralSeparation(BinauralLocalization):
    """What `vbss.separate_binaural` found: the sources' sounds beside their positions.

    Attributes:
        images: each source as the ears hear it, at the recording's rate, length and level. Of a recording whose rate is
            above the analysis's, what is above half of the latter is lost.
        sample_rate: Hz.
        energy_shares: each source's share of the energy of all images.
        sum_solution: of the sum model's inference, if there is one.
        expected_sdr: dB, as of `vbss.Separation`; None without a sum model.
    """

    images: Float[np.ndarray, "sources 2 samples"]
    sample_rate: int
    energy_shares: Float[np.ndarray, " sources"]
    sum_solution: Solution | None
    expected_sdr: Float[np.ndarray, " sources"] | None

    @property
    def solutions(self):
        return super().solutions | ({} if self.sum_solution is None else {"sum model": self.sum_solution})
