"""Algorithms, each in its file, behind the one call `fit`."""

from vbss.inference.em import EM as EM
from vbss.inference.fit import fit as fit
from vbss.inference.solution import Solution as Solution
from vbss.inference.solution import Status as Status
