"""Factors of sites that the program reads through their values."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from vbss.factors.base import Factor, ProgramObjective, Reading
from vbss.families import GaussMarkov, Natural, ValueFamily
from vbss.families.chain import Chain


class ValueFactor(Factor):
    """A site read through its value, independent along its plates; or several that one family joins.

    Attributes:
        smoothed: of a chain, its moments and entropy; None of others.
    """

    natural: Natural
    smoothed: Any
    family: ValueFamily
    covered: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, natural: Natural, family: ValueFamily, covered: tuple[str, ...]):
        self.natural, self.family, self.covered = natural, family, covered
        self.smoothed = family.smoothed(natural) if isinstance(family, Chain) else None

    @property
    def sites(self):
        return self.covered

    def integrate(self, objective):
        def of_value(value: Any) -> Array:
            return objective(named(self.covered, value))

        if isinstance(self.family, GaussMarkov):
            return self.family.integrate_smoothed(of_value, self.smoothed)
        return self.family.integrate(of_value, self.natural)

    def representative(self):
        return named(self.covered, self._center())

    def _center(self) -> Any:
        return self.family.center(self.natural) if self.smoothed is None else self.smoothed.mean

    def update(self, objective):
        return self.with_natural(
            self.family.coefficients(lambda value: objective(named(self.covered, value)), self._center())
        )

    def readings(self, objective):
        return [value_reading(self.covered, self.family, self.natural, objective)]

    def perturbed(self, key):
        return self.with_natural(self.family.perturbed(self.natural, key))

    def canonical(self):
        return self.natural

    def with_natural(self, natural):
        return ValueFactor(natural, self.family, self.covered)

    def entropy(self):
        if self.smoothed is None:
            return self.family.entropy(self.natural).sum()
        return self.smoothed.entropy.sum()

    def sample(self, key):
        return named(self.covered, self.family.sample(self.natural, key))

    def distributions(self):
        return named(self.covered, self.family.distribution(self.natural))


def named(sites: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A family's value (a tuple where it covers several sites) under the names of its sites."""
    return dict(zip(sites, value if len(sites) > 1 else (value,), strict=True))


def value_reading(
    sites: tuple[str, ...], family: ValueFamily, natural: Natural, objective: ProgramObjective
) -> Reading:
    """How the factor of these sites reads an objective."""

    def of_value(value: Any) -> Array:
        return objective(named(sites, family.symmetric(value)))

    return Reading(
        f"{family.claim} {' and '.join(map(repr, sites))}, each element on its own",
        of_value,
        lambda value: family.coefficients(of_value, value),
        lambda coefficients, value: family.inner(coefficients, family.statistics(family.symmetric(value))).sum(),
        lambda key: family.probed(natural, key),
        jax.eval_shape(family.log_partition, natural).ndim,
    )
