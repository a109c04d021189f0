"""What an algorithm of inference is: a state, a step and a rule to stop; the loop belongs to `fit`."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import equinox as eqx
from equinox import AbstractVar
from jaxtyping import Array, Float

from vbss.errors import InputError
from vbss.inference.stopping import StoppingRule
from vbss.posteriors import AbstractPosterior
from vbss.program import Model

Start = Mapping[str, Array] | AbstractPosterior | None


class Algorithm(eqx.Module):
    """A way to infer. Its fields are settings, static under compilation; what changes is in its state.

    Attributes:
        frozen: names of parameters and points that stay as they are.
    """

    frozen: AbstractVar[tuple[str, ...]]

    @property
    def default_steps(self) -> int:
        """How many steps `fit` takes at most where it is not told."""
        return 200

    moves_on: ClassVar[bool] = True
    """Whether a state may be gone on from with other data; if not, its posterior is a start."""

    judges_end: ClassVar[bool] = True
    """Whether the bound of the final state is asked for, at the cost of one more step."""

    @property
    @abstractmethod
    def rule(self) -> StoppingRule:
        """When to stop."""

    @abstractmethod
    def begin(self, model: Model, data: tuple, start: Start, key: Array) -> Any:
        """The state before the first step.

        Args:
            start: {site: probabilities or value}, the posterior of an earlier inference, or None.

        Raises:
            ValueError: if the program is outside what the algorithm can infer, naming the site and what to do.
        """

    @abstractmethod
    def owns(self, state: Any) -> bool:
        """Whether this is a state of the algorithm, which it can go on from."""

    def check_state(self, model: Model, state: Any, data: tuple) -> None:
        """Raise ValueError where the algorithm cannot go on from one of its states with these data."""
        return None

    def constants(self, model: Model, state: Any, data: tuple) -> Any:
        """What all steps need and none changes, computed once."""
        return None

    @abstractmethod
    def step(self, model: Model, state: Any, data: tuple, constants: Any) -> tuple[Model, Any, Float[Array, ""]]:
        """One step, a pure function of pytrees: the new model and state, and the bound of the state it began with.

        Where data are taken in part or latents are drawn, it is an estimate, or what is climbed in the bound's place.
        """

    @abstractmethod
    def posterior(self, model: Model, state: Any, data: tuple) -> AbstractPosterior:
        """What is known of the latent sites in this state."""


def names_of(frozen: str | Iterable[str]) -> tuple[str, ...]:
    """Names as a tuple; a lone name is one name."""
    return (frozen,) if isinstance(frozen, str) else tuple(frozen)


def check_frozen(frozen: tuple[str, ...], model: Model, points: Mapping[str, Any]) -> None:
    """Raise ValueError where `frozen` names what is neither a parameter of the model nor a point of the program."""
    known = [*model.parameter_kinds(), *points]
    for name in frozen:
        if name not in known:
            raise InputError(f"frozen: {name!r} is not a parameter or point of the program; there are {known}")
