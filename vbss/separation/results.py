"""What a separation or a localisation gives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vbss.inference import Solution
from vbss.settings import Settings


@dataclass(frozen=True)
class Localization:
    """What `vbss.localize` found; sources are in the order of their directions, from 0 to 2 pi.

    Attributes:
        azimuths: the candidate directions, rad, counter-clockwise from +x.
        direction_posterior: the posterior probability of each source's direction.
        directions: the most probable azimuth of each source, rad; nan if inference failed.
        masks: the posterior probability that a source owns a bin; equal for all sources in pauses.
        classes: which class of the mixture model's posterior each source is.
        reference_microphone: the channel of the recording that stands for it, counted from 0.
        settings: how the recording was analysed.
        solution: of the mixture model's inference, with its status and its trace of the bound.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    azimuths: Float[np.ndarray, " directions"]
    direction_posterior: Float[np.ndarray, "sources directions"]
    directions: Float[np.ndarray, " sources"]
    masks: Float[np.ndarray, "frames frequencies sources"]
    classes: Int[np.ndarray, " sources"]
    reference_microphone: int
    settings: Settings
    solution: Solution
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def solutions(self) -> dict[str, Solution]:
        """Of every model that was fitted, by its stage."""
        return {"mixture model": self.solution}


@dataclass(frozen=True)
class Separation(Localization):
    """What `vbss.separate` found: the sources' sounds beside their directions.

    Attributes:
        sources: each source as the reference microphone hears it, at the recording's rate, length and level.
        sample_rate: Hz.
        energy_shares: each source's share of the energy of all `sources`.
        sum_solution: of the sum model's inference, where the pipeline has one.
        expected_sdr: dB; how good the posterior of the sum model expects each source to be: the energy that it expects
            of the source, over that of its own uncertainty. Rather too high where the model does not fit.
        images: each source as every microphone hears it, where that was asked for; silence in channels left out.
    """

    sources: Float[np.ndarray, "sources samples"]
    sample_rate: int
    energy_shares: Float[np.ndarray, " sources"]
    sum_solution: Solution | None
    expected_sdr: Float[np.ndarray, " sources"] | None
    images: Float[np.ndarray, "sources channels samples"] | None = None

    @property
    def solutions(self):
        return super().solutions | ({} if self.sum_solution is None else {"sum model": self.sum_solution})
