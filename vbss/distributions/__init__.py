"""Probability distributions that NumPyro lacks, their constraints, and bijections from real coordinates onto them.

With the bijections, complex latents work in NumPyro's own guides and samplers.
"""

from vbss.distributions.complex_angular_central_gaussian import (
    ComplexAngularCentralGaussian as ComplexAngularCentralGaussian,
)
from vbss.distributions.complex_inverse_wishart import ComplexInverseWishart as ComplexInverseWishart
from vbss.distributions.complex_normal import ComplexMultivariateNormal as ComplexMultivariateNormal
from vbss.distributions.complex_normal import ComplexNormal as ComplexNormal
from vbss.distributions.complex_wishart import ComplexWishart as ComplexWishart
from vbss.distributions.constraints import complex_lower_cholesky as complex_lower_cholesky
from vbss.distributions.constraints import complex_scalar as complex_scalar
from vbss.distributions.constraints import complex_unit_vector as complex_unit_vector
from vbss.distributions.constraints import complex_vector as complex_vector
from vbss.distributions.constraints import hermitian_positive_definite as hermitian_positive_definite
from vbss.distributions.discrete import Indicator as Indicator
from vbss.distributions.discrete import MarkovChain as MarkovChain
from vbss.distributions.empirical import Empirical as Empirical
from vbss.distributions.gauss_markov_chain import GaussMarkovChain as GaussMarkovChain
from vbss.distributions.transforms import ComplexLowerCholeskyTransform as ComplexLowerCholeskyTransform
from vbss.distributions.transforms import ComplexScalarTransform as ComplexScalarTransform
from vbss.distributions.transforms import ComplexVectorTransform as ComplexVectorTransform
from vbss.distributions.transforms import HermitianTransform as HermitianTransform
