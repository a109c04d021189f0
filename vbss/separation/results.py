"""What a separation or a localisation gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vbss.inference import Solution
from vbss.settings import Settings


@dataclass(frozen=True)
class Localization:
    """What `vbss.localize` found; sources are in the order of their directions, from 0 to 2 pi.

    Of an array whose microphones' positions are not known there are no directions, and sources are in the order of
    their energy, the strongest first.

    Attributes:
        azimuths: the candidate directions, rad, counter-clockwise from +x; None where positions are not known.
        direction_posterior: the posterior probability of each source's direction, or None.
        directions: the most probable azimuth of each source, rad; nan if inference failed. Or None.
        masks: the posterior probability that a source owns a bin; equal for all sources in pauses. They add up to one,
            but in a noisy recording, where what is left is noise (`vbss.Pipeline.has_noise`).
        classes: which class of the mixture model's posterior each source is.
        reference_microphone: the channel of the recording that stands for it, counted from 0.
        settings: how the recording was analysed.
        solution: of the mixture model's inference, with its status and its trace of the bound.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
        number_probabilities: of 1, 2, ... sources, where they were counted (`vbss.counting.count_sources`).
    """

    azimuths: Float[np.ndarray, " directions"] | None
    direction_posterior: Float[np.ndarray, "sources directions"] | None
    directions: Float[np.ndarray, " sources"] | None
    masks: Float[np.ndarray, "frames frequencies sources"]
    classes: Int[np.ndarray, " sources"]
    reference_microphone: int
    settings: Settings
    solution: Solution
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    number_probabilities: Float[np.ndarray, " numbers"] | None

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


@dataclass(frozen=True)
class Block:
    """What `vbss.separate_long` found in a block; sources are in the order of the whole recording.

    Attributes:
        start: s.
        stop: s.
        directions: rad; None for a source that has none, as the block is silent or inference failed, and for all where
            the microphones' positions are not known.
        energy_shares: of the sources.
        expected_sdr: dB, where there is a sum model (`Separation.expected_sdr`).
        statuses: how the inference of each stage ended.
        warnings: reasons to doubt the block.
    """

    start: float
    stop: float
    directions: list[float | None] | None
    energy_shares: list[float]
    expected_sdr: list[float] | None
    statuses: dict[str, str]
    warnings: list[str]


@dataclass(frozen=True)
class LongSeparation:
    """What `vbss.separate_long` found.

    Attributes:
        sources: the files of the sources' sounds, in the order of their directions in the whole recording, or, where
            the microphones' positions are not known, of their energy in excerpts of it.
        sample_rate: Hz.
        num_samples: of each source.
        blocks: in the order of time.
        energies: of the sources, sums of squares.
        reference_microphone: the channel of the recording that stands for it, counted from 0.
        settings: how each block was analysed.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of all blocks, those of runs that were stopped included.
    """

    sources: tuple[Path, ...]
    sample_rate: int
    num_samples: int
    blocks: tuple[Block, ...]
    energies: Float[np.ndarray, " sources"]
    reference_microphone: int
    settings: Settings
    warnings: tuple[str, ...]
    seconds: float

    @property
    def energy_shares(self) -> Float[np.ndarray, " sources"]:
        """Each source's share of the energy of all sources."""
        return shares(self.energies)


def shares(energies: Float[np.ndarray, " sources"]) -> Float[np.ndarray, " sources"]:
    """Each energy's share of all; of silence, all have the same."""
    total = energies.sum()
    return energies / total if total > 0 else np.full(len(energies), 1 / len(energies))
