"""Probability distributions that NumPyro lacks."""

from vbss.distributions.complex_inverse_wishart import ComplexInverseWishart as ComplexInverseWishart
from vbss.distributions.constraints import complex_vector as complex_vector
from vbss.distributions.constraints import hermitian_positive_definite as hermitian_positive_definite
from vbss.distributions.discrete import Indicator as Indicator
from vbss.distributions.discrete import MarkovChain as MarkovChain
