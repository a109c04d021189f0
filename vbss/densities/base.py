"""What a density behind gates is; those of exponential families are sums of products of statistics and parameters.

Axes are single lower-case letters, as in einsum. A parameter is a pair (axes, array), its event axes last; the letters
of the site's plates stand for the plates, the other letters are contracted with the gates.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from vbss.densities.labelled import Labelled, contract, summed_product


class Term(NamedTuple):
    """`number` times the product of the factors, summed over every axis that the result does not keep."""

    number: float
    factors: list[Labelled]


Pick = Callable[[Labelled, int], Array]


class Density(eqx.Module):
    """What a gated site may be."""

    support: ClassVar[Any]  # a constraint, or a property that gives one

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]: ...

    @abstractmethod
    def parameters(self) -> list[tuple[Labelled, int]]:
        """The parameters, each with the number of its trailing event axes."""

    @abstractmethod
    def statistics(self, plates: str, value: Array) -> dict[str, Array]:
        """What the log density needs of an observation.

        Computed once per recording, outside the iteration: it may depend on the data and on constants alone.
        """

    @abstractmethod
    def total(
        self,
        statistics: dict[str, Array],
        gates: list[Labelled],
        mask: Labelled | None,
        plate_sizes: dict[str, int],
    ) -> Array:
        """The log density to the power of the gates, summed over the plates where the mask is True: a scalar.

        Args:
            plate_sizes: {letter: size} of the plates, in order.
        """

    @abstractmethod
    def elementwise(self, statistics: dict[str, Array], gates: list[Labelled], plates: str) -> Array:
        """The log density to the power of the gates, (*leading, *plates); a plate that nothing spans has size 1."""

    @abstractmethod
    def sample(self, key: Array, pick: Pick, shape: tuple[int, ...]) -> Array:
        """A draw of shape (*shape, *event_shape); `pick` contracts a parameter with the gates."""


class ExponentialFamily(Density):
    """A log density that is a sum of `Term`s."""

    @abstractmethod
    def terms(self, plates: str, statistics: dict[str, Array]) -> list[Term]:
        """The log density at an observation, given its statistics."""

    def total(self, statistics, gates, mask, plate_sizes):
        dtype = self.parameters()[0][0].array.dtype
        masks = [] if mask is None else [Labelled(mask.axes, mask.array.astype(dtype))]
        result = jnp.zeros((), dtype)
        for term in self.terms("".join(plate_sizes), statistics):
            factors = [*masks, *gates, *term.factors]
            result = result + term.number * _repeats(factors, plate_sizes) * summed_product(factors)
        return result

    def elementwise(self, statistics, gates, plates):
        return reduce(jnp.add, [self._at_elements(term, gates, plates) for term in self.terms(plates, statistics)])

    def _at_elements(self, term: Term, gates: list[Labelled], plates: str) -> Array:
        factors = [*gates, *term.factors]
        present = "".join(letter for letter in plates if any(letter in factor.axes for factor in factors))
        absent = [plates.index(letter) - len(plates) for letter in plates if letter not in present]
        return jnp.expand_dims(term.number * contract(factors, "...", present), absent)


def _repeats(factors: list[Labelled], plate_sizes: dict[str, int]) -> int:
    """How often the contraction must be counted: the plates that no factor spans."""
    count = 1
    for letter, size in plate_sizes.items():
        spans = [factor.array.shape[factor.axes.index(letter)] for factor in factors if letter in factor.axes]
        if max(spans, default=1) == 1:
            count *= size
    return count
