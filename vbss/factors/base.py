"""What a factor of the posterior is.

A factor covers one site, an indicator together with a latent given it, or sites that one family joins. Its value for
the program is a dictionary {site: array}, with the expectations of statistics under the names of their deterministic
sites.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array

from vbss.families import Natural

Values = dict[str, Array]
ProgramObjective = Callable[[Values], Array]


class Reading(NamedTuple):
    """How coefficients are read from an objective: if its claim holds, `form` is the objective up to a constant.

    Attributes:
        claim: what the program must be for the reading to be exact.
        objective: f(x).
        coefficients: of x's statistics in f, read at x.
        form: <coefficients, statistics(x)>.
        draw: a random state x for a random key.
        batch_rank: number of leading axes of x whose entries are read independently of each other.
    """

    claim: str
    objective: Callable[[Any], Array]
    coefficients: Callable[[Any], Any]
    form: Callable[[Any, Any], Array]
    draw: Callable[[Array], Any]
    batch_rank: int


class Factor(eqx.Module):
    """One independent part of q: it integrates a function exactly and updates itself from one."""

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """The latent sites that the factor covers."""

    @abstractmethod
    def integrate(self, objective: ProgramObjective) -> Array:
        """The exact expectation of the objective under the factor."""

    @abstractmethod
    def representative(self) -> Values:
        """Some values of the factor's sites, in the shapes that the program reads."""

    def integrate_every_state(self, objective: ProgramObjective) -> Array:
        """The expectation with every state of the factor's indicator held open (its one-hot all ones)."""
        raise ValueError(f"given: {self.sites[0]!r} is not an indicator")

    @abstractmethod
    def update(self, objective: ProgramObjective) -> "Factor":
        """The factor's optimum, exp(objective) normalised, read from derivatives."""

    @abstractmethod
    def readings(self, objective: ProgramObjective) -> list[Reading]:
        """What `update` takes for granted about the objective."""

    @abstractmethod
    def perturbed(self, key: Array) -> "Factor":
        """Another factor at random about this one."""

    @abstractmethod
    def with_natural(self, natural: Natural) -> "Factor":
        """The factor at other natural parameters (`logits` among them where it has an indicator of its own)."""

    @abstractmethod
    def canonical(self) -> Natural:
        """Natural parameters that `with_natural` takes back; equal for equal distributions, but for a chain's gauge."""

    @abstractmethod
    def entropy(self) -> Array: ...

    @abstractmethod
    def sample(self, key: Array) -> Values:
        """A joint draw of the sites' values, as NumPyro's program takes them."""

    @abstractmethod
    def distributions(self) -> dict[str, dist.Distribution]:
        """The marginal of each site as a NumPyro distribution."""


def placeholder(site: str, shape: tuple[int, ...]) -> Values:
    """Some value for the categorical site beneath a one-hot; nothing reads it."""
    return {site: jnp.zeros(shape, jnp.int32)}
