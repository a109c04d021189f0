"""The independent parts of q, one kind a file."""

from vbss.factors.base import Factor as Factor
from vbss.factors.base import ProgramObjective as ProgramObjective
from vbss.factors.base import Reading as Reading
from vbss.factors.base import Values as Values
from vbss.factors.given import GivenFactor as GivenFactor
from vbss.factors.mode import ModeFactor as ModeFactor
from vbss.factors.start import started as started
from vbss.factors.statistics import StatisticsFactor as StatisticsFactor
from vbss.factors.value import ValueFactor as ValueFactor
