"""The posterior of a recording: named factors, and points."""

import equinox as eqx
import jax
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.context import relaxed_promotion
from vbss.factors import Factor, Values
from vbss.kinds import Kind
from vbss.posteriors.base import AbstractPosterior


class Posterior(AbstractPosterior):
    """q: independent factors over the latent sites, and point estimates of a recording's own unknowns.

    `posterior["site"]` is a NumPyro distribution for a latent site and an array for a point.
    """

    factors: dict[str, Factor]
    points: dict[str, Array]
    kinds: tuple[tuple[str, Kind, str | None], ...] = eqx.field(static=True)
    order: tuple[str, ...] = eqx.field(static=True)

    def __getitem__(self, name: str) -> dist.Distribution | Array:
        if name in self.points:
            return self.points[name]
        for factor in self.factors.values():
            if name in factor.sites:
                with relaxed_promotion():
                    return factor.distributions()[name]
        raise self.unknown(name)

    def names(self) -> set[str]:
        return {site for factor in self.factors.values() for site in factor.sites} | set(self.points)

    def sample(self, key: Array, num_samples: int) -> Values:
        @jax.vmap
        def draw(key: Array) -> Values:
            keys = jax.random.split(key, max(len(self.factors), 1))
            values: Values = {}
            for factor, key_factor in zip(self.factors.values(), keys, strict=False):
                values |= factor.sample(key_factor)
            return values

        with relaxed_promotion():
            return draw(jax.random.split(key, num_samples))

    def kind_of(self, point: str) -> tuple[Kind, str | None]:
        """A point's kind, and the indicator that it is given."""
        return next((kind, given) for name, kind, given in self.kinds if name == point)

    def block_of(self, name: str) -> str:
        """The key of the factor or point that covers a site."""
        for key, factor in self.factors.items():
            if name in factor.sites:
                return key
        return name

    def with_factor(self, key: str, factor: Factor) -> "Posterior":
        return Posterior({**self.factors, key: factor}, self.points, self.kinds, self.order)

    def with_point(self, name: str, value: Array) -> "Posterior":
        return Posterior(self.factors, {**self.points, name: value}, self.kinds, self.order)
