"""Generative models, one system a file: its program, its start and its hand-derived updates."""

from vbss.models.bayesian_mixture import BayesianGaussianMixture as BayesianGaussianMixture
from vbss.models.cacgmm import CACGMM as CACGMM
from vbss.models.cgmm import LDACGMM as LDACGMM
from vbss.models.factor_analysis import FactorAnalysis as FactorAnalysis
from vbss.models.fast_mnmf import FastMNMF as FastMNMF
from vbss.models.gmm import GaussianMixture as GaussianMixture
from vbss.models.hidden_markov import HiddenMarkovModel as HiddenMarkovModel
from vbss.models.inverse_wishart_mixture import InverseWishartMixture as InverseWishartMixture
from vbss.models.linear_dynamical import LinearDynamicalSystem as LinearDynamicalSystem
from vbss.models.local_gaussian_nmf import LocalGaussianNMF as LocalGaussianNMF
from vbss.models.magnitude_vae import MagnitudeVAE as MagnitudeVAE
from vbss.models.messl import MESSL as MESSL
from vbss.models.ppam import PPAM as PPAM
from vbss.models.spectral_vae import SpectralVAE as SpectralVAE
from vbss.models.student_mixture import StudentMixture as StudentMixture
from vbss.models.switching_linear_dynamical import SwitchingLinearDynamicalSystem as SwitchingLinearDynamicalSystem
from vbss.models.vae_nmf import VAENMF as VAENMF
from vbss.models.vessl import VESSL as VESSL
