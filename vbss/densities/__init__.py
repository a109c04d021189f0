"""Densities for `vbss.Gated`: exponential families, whose statistics are contracted, and any other by enumeration."""

from vbss.densities.base import Density as Density
from vbss.densities.expanded import Expanded as Expanded
from vbss.densities.exponential import ComplexNormal as ComplexNormal
from vbss.densities.exponential import MultivariateNormal as MultivariateNormal
from vbss.densities.exponential import Normal as Normal
from vbss.densities.linear_normal import LinearNormal as LinearNormal
from vbss.densities.wrapped import WrappedResidual as WrappedResidual
