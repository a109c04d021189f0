"""Exponential families of latents: what a factor of the posterior may be."""

import numpyro.distributions as dist

from vbss.distributions.complex_inverse_wishart import ComplexInverseWishart as ComplexInverseWishartDistribution
from vbss.distributions.complex_normal import ComplexMultivariateNormal, ComplexNormal
from vbss.distributions.discrete import Indicator, MarkovChain
from vbss.distributions.gauss_markov_chain import GaussMarkovChain
from vbss.families.base import Family as Family
from vbss.families.base import Natural as Natural
from vbss.families.base import PointFamily as PointFamily
from vbss.families.base import StatisticsFamily as StatisticsFamily
from vbss.families.base import Value as Value
from vbss.families.base import ValueFamily as ValueFamily
from vbss.families.categorical import Categorical as Categorical
from vbss.families.complex_gaussian import ComplexGaussian as ComplexGaussian
from vbss.families.complex_inverse_wishart import ComplexInverseWishart as ComplexInverseWishart
from vbss.families.dirichlet import Dirichlet as Dirichlet
from vbss.families.gamma import Gamma as Gamma
from vbss.families.gauss_markov import GaussMarkov as GaussMarkov
from vbss.families.gaussian import Gaussian as Gaussian
from vbss.families.joint_gaussian import JointGaussian as JointGaussian
from vbss.families.markov_chain import DiscreteChain as DiscreteChain
from vbss.families.normal_wishart import NormalWishart as NormalWishart
from vbss.families.wishart import Wishart as Wishart


def value_family(fn: dist.Distribution) -> ValueFamily | None:
    """The family of a latent that is read through its value, if it is one."""
    if isinstance(fn, dist.Normal):
        return Gaussian(0)
    if isinstance(fn, dist.MultivariateNormal):
        return Gaussian(1)
    if isinstance(fn, dist.Independent) and fn.reinterpreted_batch_ndims == 1 and _is_normal(fn.base_dist):
        return Gaussian(1)
    if isinstance(fn, dist.Gamma):
        return Gamma()
    if isinstance(fn, dist.Dirichlet):
        return Dirichlet()
    if isinstance(fn, dist.Wishart):
        return Wishart()
    if isinstance(fn, ComplexNormal):
        return ComplexGaussian(0)
    if isinstance(fn, ComplexMultivariateNormal):
        return ComplexGaussian(1)
    if isinstance(fn, GaussMarkovChain):
        return GaussMarkov()
    return None


def _is_normal(fn: dist.Distribution) -> bool:
    base = fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn
    return isinstance(base, dist.Normal)


def statistics_family(fn: dist.Distribution) -> StatisticsFamily | None:
    """The family of a latent that is read through its statistics, if it is one."""
    if isinstance(fn, Indicator):
        return Categorical(fn.axis)
    if isinstance(fn, MarkovChain):
        return DiscreteChain()
    if isinstance(fn, ComplexInverseWishartDistribution):
        return ComplexInverseWishart()
    return None
