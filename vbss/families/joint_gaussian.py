"""A joint Gaussian over several sites."""

from itertools import pairwise
from math import prod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vbss.context import relaxed_promotion
from vbss.errors import InputError
from vbss.families.gaussian import Gaussian, GaussianVectors, moments


class JointGaussian(GaussianVectors):
    """Several real sites, Gaussian together: a value is a tuple of arrays (*batch, *event) with one common batch.

    The vector is the sites' events one after the other; `Gaussian(1).distribution(natural)` is the joint distribution.

    Args:
        event_shapes: of each site, () or (L,).

    Raises:
        InputError: for an event of more axes.
    """

    claim: ClassVar[str] = "jointly quadratic in"
    event_shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __check_init__(self):
        if any(len(shape) > 1 for shape in self.event_shapes):
            raise InputError(f"event_shapes must hold () or (L,) for each site, got {self.event_shapes}.")

    @property
    def _places(self) -> list[slice]:
        """Where each site stands in the vector."""
        bounds = np.cumsum([0, *map(prod, self.event_shapes)]).tolist()
        return [slice(start, stop) for start, stop in pairwise(bounds)]

    def vector(self, value):
        pairs = zip(value, self.event_shapes, strict=True)
        return jnp.concatenate([site if shape else site[..., None] for site, shape in pairs], -1)

    def value(self, vector):
        pairs = zip(self._places, self.event_shapes, strict=True)
        return tuple(vector[..., place] if shape else vector[..., place.start] for place, shape in pairs)

    def distribution(self, natural):  # type: ignore[override]
        """The marginal of each site: a tuple of normal and multivariate normal distributions."""
        mean, root = moments(natural)
        marginals = []
        for place, shape, loc in zip(self._places, self.event_shapes, self.value(mean), strict=True):
            rows = root[..., place, :]
            if shape:
                with relaxed_promotion():
                    covariance = rows @ jnp.swapaxes(rows, -1, -2)
                    marginals.append(dist.MultivariateNormal(loc, covariance_matrix=covariance))
            else:
                marginals.append(dist.Normal(loc, jnp.sqrt((rows**2).sum((-2, -1)))))
        return tuple(marginals)

    def natural_of(self, fn: Any):
        """Of a tuple of normal and multivariate normal distributions, one for each site: independent sites."""
        pairs = zip(fn, self.event_shapes, strict=True)
        sites = [Gaussian(len(shape)).natural_of(site) for site, shape in pairs]
        linear = jnp.concatenate([site["linear"] for site in sites], -1)
        precision = jnp.zeros((*linear.shape, linear.shape[-1]), linear.dtype)
        for place, site in zip(self._places, sites, strict=True):
            precision = precision.at[..., place, place].set(site["precision"])
        return {"linear": linear, "precision": precision}
