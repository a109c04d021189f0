"""The posterior as a guide of NumPyro leaves it: draws, and the marginals that are known exactly."""

import equinox as eqx
import jax
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vbss.distributions.empirical import Empirical
from vbss.posteriors.base import AbstractPosterior


class GuidePosterior(AbstractPosterior):
    """Independent joint draws of the latent sites from a guide. It holds arrays alone.

    `posterior["site"]` is a normal distribution for a site whose marginal in the guide is one (real sites of
    `AutoNormal`), a `vbss.distributions.Empirical` for any other continuous site, an array for a point, and a
    categorical distribution for a discrete site: its exact probabilities given each draw of the continuous sites,
    averaged.

    Attributes:
        draws: {site: (num_samples, *shape)}, in the shapes of the program's sites.
        probabilities: {discrete site: (*shape, K)}.
        normals: {site: (loc, scale)} of known marginals.
        event_ranks: of the sites in `normals`: name and number of trailing axes of one event.
        points: {point: value}.
    """

    draws: dict[str, Array]
    probabilities: dict[str, Float[Array, "..."]]
    normals: dict[str, tuple[Array, Array]]
    event_ranks: tuple[tuple[str, int], ...] = eqx.field(static=True)
    points: dict[str, Array]

    def __getitem__(self, name: str) -> dist.Distribution | Array:
        if name in self.points:
            return self.points[name]
        if name not in self.draws:
            raise self.unknown(name)
        if name in self.normals:
            return dist.Normal(*self.normals[name], validate_args=False).to_event(dict(self.event_ranks)[name])
        if name in self.probabilities:
            return dist.CategoricalProbs(self.probabilities[name], validate_args=False)
        return Empirical(self.draws[name])

    def names(self) -> set[str]:
        return {*self.draws, *self.points}

    def sample(self, key: Array, num_samples: int) -> dict[str, Array]:
        """Some of the draws, at random; all different unless more are asked for than there are."""
        num_draws = next(iter(self.draws.values())).shape[0] if self.draws else 1
        chosen = jax.random.choice(key, num_draws, (num_samples,), replace=num_samples > num_draws)
        return {name: value[chosen] for name, value in self.draws.items()}
