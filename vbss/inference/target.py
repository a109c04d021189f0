"""What kernels move positions under: a log density over flat real vectors."""

from abc import abstractmethod
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

Layout = tuple[tuple[str, tuple[int, ...], str], ...]


class SiteDensity(NamedTuple):
    """What a site adds to a log density.

    Attributes:
        log_prob: of each element of its plates.
        frames: the plates, with names and dimensions.
        support: of the values, without event axes that are independent.
        batch_rank, event_rank: number of axes of its distribution's batch and event.
        is_observed: whether it holds data.
    """

    log_prob: Array
    frames: tuple
    support: Any
    batch_rank: int
    event_rank: int
    is_observed: bool


class Target(eqx.Module):
    """A log density; `vbss.inference.unconstrained` makes it of a program.

    Attributes:
        layout: name, shape and dtype of each continuous latent's coordinates in a position.
    """

    layout: eqx.AbstractVar[Layout]

    @property
    @abstractmethod
    def discrete(self) -> tuple[str, ...]:
        """Names of the discrete latents, which are summed out."""

    @property
    def size(self) -> int:
        """The length of a position."""
        return sum(prod(shape) for _, shape, _ in self.layout)

    @abstractmethod
    def log_density(self, position: Float[Array, " size"]) -> Float[Array, ""]:
        """log p(y, position): of the values, plus that of the Jacobian."""

    @abstractmethod
    def sites(self, position: Float[Array, " size"]) -> dict[str, SiteDensity]:
        """What each site of a program without discrete latents adds, before sums over plates; no Jacobian."""
