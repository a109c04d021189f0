"""How a network is trained."""

from dataclasses import dataclass
from typing import Any

from vbss.errors import InputError, one_of, positive, whole_number


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        batch_size: items of a step.
        learning_rate: of Adam, at the start.
        decay: the learning rate is multiplied by this when the validation bound was not better for `patience` epochs
            (0.7 in Deep Bayesian cGMM).
        patience: see `decay`.
        stop_after: training ends when the validation bound was not better for so many epochs.
        max_epochs: passes over the corpus at most.
        largest_gradient: gradients of a larger norm are scaled down to it, the loss being in nats per number of data.
        precision: "float32", or "mixed": networks are computed in bfloat16, from weights that are kept as they
            are, where the products of `vbss.networks` may be; their recurrences, masks and the bound stay as they are.
            On a GPU that is faster, on a CPU slower.
        num_workers: threads that read the next items while a step is computed.
        seed: of the order of the items.

    Raises:
        InputError: for a number out of its range.
    """

    batch_size: int = 8
    learning_rate: float = 1e-3
    decay: float = 0.7
    patience: int = 1
    stop_after: int = 8
    max_epochs: int = 100
    largest_gradient: float = 1.0
    precision: str = "float32"
    num_workers: int = 2
    seed: int = 0

    def __post_init__(self):
        for name, low in (("batch_size", 1), ("patience", 1), ("stop_after", 1), ("max_epochs", 0), ("num_workers", 1)):
            whole_number(name, getattr(self, name), low)
        one_of("precision", self.precision, ("float32", "mixed"))
        whole_number("seed", self.seed, 0, 2**32 - 1)
        for name in ("learning_rate", "largest_gradient"):
            positive(name, getattr(self, name))
        if positive("decay", self.decay) > 1:
            raise InputError(f"decay must be between 0 and 1, got {self.decay!r}.")


def settings_or(default: TrainingSettings, settings: Any) -> TrainingSettings:
    """`settings`, or the default in place of None; an `InputError` for anything else."""
    if settings is None:
        return default
    if not isinstance(settings, TrainingSettings):
        raise InputError(f"settings must be a vbss.TrainingSettings, got {type(settings).__name__}.")
    return settings
