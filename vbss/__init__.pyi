"""The public names; `__init__.py` loads each when it is first used."""

__version__: str

from . import audio as audio
from . import distributions as distributions
from . import metrics as metrics
from . import models as models
from . import plots as plots
from . import scenes as scenes
from .check import Derivation as Derivation
from .check import check_derivation as check_derivation
from .densities import ComplexNormal as ComplexNormal
from .densities import Expanded as Expanded
from .densities import MultivariateNormal as MultivariateNormal
from .densities import Normal as Normal
from .gated import Gated as Gated
from .inference import EM as EM
from .inference import MCMC as MCMC
from .inference import SVI as SVI
from .inference import MonteCarloEM as MonteCarloEM
from .inference import NaturalGradient as NaturalGradient
from .inference import Plateau as Plateau
from .inference import Solution as Solution
from .inference import Status as Status
from .inference import fit as fit
from .kinds import Linear as Linear
from .kinds import Precision as Precision
from .kinds import Simplex as Simplex
from .kinds import Variance as Variance
from .numerical import Numerical as Numerical
from .posteriors import Posterior as Posterior
from .probes import ProgramError as ProgramError
from .program import Given as Given
from .program import Model as Model
from .program import indicator as indicator
from .program import markov_chain as markov_chain
from .program import point as point
from .program import statistics as statistics
from .separation import Localization as Localization
from .separation import Separation as Separation
from .separation import localize as localize
from .separation import separate as separate
from .settings import Settings as Settings
from .storage import load as load
from .storage import save as save
