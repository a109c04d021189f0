"""Generative models, one system a file: its program, its start and its hand-derived updates."""

from vbss.models.cgmm import LDACGMM as LDACGMM
from vbss.models.gmm import GaussianMixture as GaussianMixture
