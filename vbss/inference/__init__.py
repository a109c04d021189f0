"""Algorithms, each in its file, behind the one call `fit`."""

from vbss.inference.algorithm import Algorithm as Algorithm
from vbss.inference.amortised import Amortised as Amortised
from vbss.inference.amortised_em import AmortisedEM as AmortisedEM
from vbss.inference.amortised_normal import AmortisedNormal as AmortisedNormal
from vbss.inference.ascent import Ascent as Ascent
from vbss.inference.batch import fit_batch as fit_batch
from vbss.inference.em import EM as EM
from vbss.inference.fit import fit as fit
from vbss.inference.kernel import Kernel as Kernel
from vbss.inference.langevin import MALA as MALA
from vbss.inference.langevin import Langevin as Langevin
from vbss.inference.mcmc import MCMC as MCMC
from vbss.inference.metropolis import Metropolis as Metropolis
from vbss.inference.monte_carlo_em import MonteCarloEM as MonteCarloEM
from vbss.inference.natural_gradient import NaturalGradient as NaturalGradient
from vbss.inference.nuts import NUTS as NUTS
from vbss.inference.restarts import fit_best as fit_best
from vbss.inference.solution import Solution as Solution
from vbss.inference.solution import Status as Status
from vbss.inference.stages import fit_stages as fit_stages
from vbss.inference.stopping import Monotone as Monotone
from vbss.inference.stopping import Plateau as Plateau
from vbss.inference.svi import SVI as SVI
