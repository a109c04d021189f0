"""vbss: variational Bayesian source separation and localisation.

A model is written once, as a NumPyro program; every inference runs from that text.
"""

from vbss.check import Derivation as Derivation
from vbss.check import check_derivation as check_derivation
from vbss.densities import ComplexNormal as ComplexNormal
from vbss.densities import MultivariateNormal as MultivariateNormal
from vbss.densities import Normal as Normal
from vbss.gated import Gated as Gated
from vbss.inference import EM as EM
from vbss.inference import Solution as Solution
from vbss.inference import Status as Status
from vbss.inference import fit as fit
from vbss.kinds import Linear as Linear
from vbss.kinds import Precision as Precision
from vbss.kinds import Simplex as Simplex
from vbss.kinds import Variance as Variance
from vbss.posterior import Posterior as Posterior
from vbss.program import Given as Given
from vbss.program import Model as Model
from vbss.program import indicator as indicator
from vbss.program import markov_chain as markov_chain
from vbss.program import point as point
from vbss.program import statistics as statistics
