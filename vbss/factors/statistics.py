"""Factors of sites that the program reads through their sufficient statistics."""

from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from vbss.factors.base import Factor, ProgramObjective, Reading, Values, placeholder
from vbss.families import Categorical, Natural, StatisticsFamily
from vbss.families.chain import Chain


class StatisticsFactor(Factor):
    """A site read through its sufficient statistics: indicators, Markov chains, covariances.

    Attributes:
        smoothed: of a chain, its moments and entropy; None of others, whose means cost no more than to carry them.
    """

    natural: Natural
    smoothed: Any
    family: StatisticsFamily
    site: str = eqx.field(static=True)

    def __init__(self, natural: Natural, family: StatisticsFamily, site: str):
        self.natural, self.family, self.site = natural, family, site
        self.smoothed = family.smoothed(natural) if isinstance(family, Chain) else None

    def _means(self) -> Natural:
        return self.family.means(self.natural) if self.smoothed is None else self.smoothed.means

    @property
    def sites(self):
        return (self.site,)

    def values(self, means: Natural) -> Values:
        """What the program is given for expected statistics."""
        return site_values(self.site, self.family, self.natural, means)

    def integrate(self, objective):
        return objective(self.representative())

    def representative(self):
        return self.values(self._means())

    def integrate_every_state(self, objective):
        return objective(self.values(jax.tree.map(jnp.ones_like, self.natural)))

    def update(self, objective):
        return self.with_natural(self._coefficients(objective, self._means()))

    def _coefficients(self, objective: ProgramObjective, means: Natural) -> Natural:
        return jax.grad(lambda m: objective(self.values(m)))(means)

    def readings(self, objective):
        return [
            Reading(
                f"linear in the {statistics_in_words(self.natural)} of {self.site!r}, each element on its own",
                lambda means: objective(self.values(means)),
                lambda means: self._coefficients(objective, means),
                lambda coefficients, means: reduce(jnp.add, [(coefficients[k] * means[k]).sum() for k in means]),
                lambda key: self.family.means(self.family.perturbed(self.natural, key)),
                jax.eval_shape(self.family.log_partition, self.natural).ndim,
            )
        ]

    def perturbed(self, key):
        return self.with_natural(self.family.perturbed(self.natural, key))

    def canonical(self):
        if isinstance(self.family, Categorical):
            return {"onehot": jax.nn.log_softmax(self.natural["onehot"], self.family.axis)}
        return self.natural

    def with_natural(self, natural):
        return StatisticsFactor(natural, self.family, self.site)

    def entropy(self):
        if self.smoothed is None:
            return self.family.entropy(self.natural).sum()
        return self.smoothed.entropy.sum()

    def sample(self, key):
        return {self.site: self.family.sample(self.natural, key)}

    def distributions(self):
        return {self.site: self.family.distribution(self.natural)}


def site_values(site: str, family: StatisticsFamily, natural: Natural, statistics: Natural) -> Values:
    """The statistics under the names of their deterministic sites, and something for the site itself."""
    named = {f"{site}/{key}": value for key, value in statistics.items()}
    if isinstance(family, Categorical):
        # At its place the states' axis may stand between plates.
        shape = list(natural["onehot"].shape)
        shape.pop(family.axis)
        return placeholder(site, tuple(shape)) | named
    drawn = jax.eval_shape(lambda n: family.mode(n), natural)
    return {site: jnp.zeros(drawn.shape, drawn.dtype)} | named


def statistics_in_words(natural: Natural) -> str:
    return "states" if "onehot" in natural else "statistics"
