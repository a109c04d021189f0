"""What moves samples of continuous latents: a kernel and the chains that it moves."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from vbss.inference.target import Target


class Kernel(eqx.Module):
    """A way to move positions under a log density; its fields are settings.

    The chains' state is a NamedTuple whose arrays have a leading axis of chains, with at least the fields `z`, the
    positions (chains, size), `potential_energy`, minus the log density there (a kernel that has no use for it may leave
    it as `begin` and `moved` set it), and `diverging`, whether the last transition went astray.
    """

    def check(self, target: Target, positions: Float[Array, "chains size"], key: Array) -> None:
        """Raise InputError where the kernel would leave another distribution invariant than this one."""
        return None

    @abstractmethod
    def owns(self, chains: Any) -> bool:
        """Whether this is a state that the kernel can go on from."""

    @abstractmethod
    def begin(self, target: Target, positions: Float[Array, "chains size"], key: Array) -> Any:
        """Chains at given positions, in the default precision of JAX."""

    @abstractmethod
    def draw(self, target: Target, chains: Any) -> Any:
        """One transition of each chain."""

    @abstractmethod
    def moved(self, target: Target, chains: Any) -> Any:
        """The same positions under another log density."""
