"""What enhancement, or separation by voices that are known, gives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vbss.audio import STFT
from vbss.inference import Solution


@dataclass(frozen=True)
class KnownSources:
    """What `vbss.enhance` and `vbss.separate_voices` found of sources whose spectra networks know.

    Attributes:
        sources: each at the recording's rate, length and level; of several channels, (sources, channels, samples). Of a
            recording whose rate is above the networks', what is above half of the latter is lost.
        noise: what is left of the recording, as it is heard at the networks' rate.
        sample_rate: Hz.
        expected_sdr: dB, (sources, channels): the energy that the posterior expects of the source, over that of its own
            uncertainty. Rather too high where the model does not fit.
        algorithm: how it was inferred.
        stft: the analysis, at the networks' rate.
        solutions: of every channel, of every block.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    sources: Float[np.ndarray, "sources channels samples"]
    noise: Float[np.ndarray, "channels samples"]
    sample_rate: int
    expected_sdr: Float[np.ndarray, "sources channels"]
    algorithm: str
    stft: STFT
    solutions: tuple[tuple[Solution, ...], ...]
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def speech(self) -> Float[np.ndarray, "channels samples"]:
        """The first source: of `vbss.enhance` the only one."""
        return self.sources[0]
