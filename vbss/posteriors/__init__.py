"""Posteriors: factors, draws of Markov chains, draws from a guide."""

from vbss.posteriors.base import AbstractPosterior as AbstractPosterior
from vbss.posteriors.factorised import Posterior as Posterior
from vbss.posteriors.guided import GuidePosterior as GuidePosterior
from vbss.posteriors.sampled import SampledPosterior as SampledPosterior
from vbss.posteriors.sampled import Summary as Summary
