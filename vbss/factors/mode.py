"""Factors that keep a latent at its most probable value."""

from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.factors.base import Factor, Reading, Values
from vbss.factors.statistics import site_values, statistics_in_words
from vbss.factors.value import named, value_reading
from vbss.families import Family, Natural, StatisticsFamily, ValueFamily


class ModeFactor(Factor):
    """A latent kept at the mode of its complete conditional (MAP), with its prior.

    Attributes:
        natural: of the complete conditional.
        held: what the program reads at the mode: the value, or its statistics; carried, so that a matrix is factorised
            once an update.
    """

    natural: Natural
    held: Any
    family: Family
    site: str = eqx.field(static=True)

    @classmethod
    def at(cls, natural: Natural, family: Family, site: str) -> "ModeFactor":
        """The mode of a member of the family."""
        if isinstance(family, StatisticsFamily):
            return cls(natural, family.mode_statistics(natural), family, site)
        return cls(natural, family.mode(natural), family, site)

    @property
    def sites(self):
        return (self.site,)

    def _values(self, held: Any) -> Values:
        if isinstance(self.family, StatisticsFamily):
            return site_values(self.site, self.family, self.natural, held)
        return {self.site: held}

    def integrate(self, objective):
        return objective(self.representative())

    def representative(self):
        return self._values(self.held)

    def update(self, objective):
        if isinstance(self.family, ValueFamily):
            natural = self.family.coefficients(lambda value: objective({self.site: value}), self.held)
        else:
            natural = jax.grad(lambda statistics: objective(self._values(statistics)))(self.held)
        return self.with_natural(natural)

    def readings(self, objective):
        if isinstance(self.family, ValueFamily):
            return [value_reading((self.site,), self.family, self.natural, objective)]
        family = self.family
        assert isinstance(family, StatisticsFamily)

        def of_statistics(statistics: Natural) -> Array:
            return objective(self._values(statistics))

        return [
            Reading(
                f"linear in the {statistics_in_words(self.natural)} of {self.site!r}, each element on its own",
                of_statistics,
                jax.grad(of_statistics),
                lambda coefficients, held: reduce(jnp.add, [(coefficients[k] * held[k]).sum() for k in held]),
                lambda key: family.mode_statistics(family.perturbed(self.natural, key)),
                jax.eval_shape(family.log_partition, self.natural).ndim,
            )
        ]

    def perturbed(self, key):
        return self.with_natural(self.family.perturbed(self.natural, key))

    def canonical(self):
        return self.natural

    def with_natural(self, natural):
        return ModeFactor.at(natural, self.family, self.site)

    def entropy(self):
        # Of nothing: the bound is that of a point, penalised by its prior.
        return jnp.zeros((), jax.tree.leaves(self.natural)[0].dtype)

    def _mode(self) -> Array:
        return self.family.mode(self.natural)

    def sample(self, key):
        return named(self.sites, self._mode())

    def distributions(self):
        mode = self._mode()
        batch_rank = jax.eval_shape(self.family.log_partition, self.natural).ndim
        return {self.site: dist.Delta(mode, event_dim=mode.ndim - batch_rank)}
