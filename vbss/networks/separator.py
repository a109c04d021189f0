"""The network that says which source a bin belongs to, from one microphone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from vbss.errors import InputError, one_of, whole_number
from vbss.networks.precision import at_least_single
from vbss.networks.recurrent import CELLS, Recurrent

_FLOOR = 1e-5  # of a bin's power, relative to the recording's mean: -50 dB


class Separator(eqx.Module):
    """q(z) of every bin from the log power at the first microphone.

    Attributes:
        recurrent: over frames.
        weight, bias: from its states to the classes of all frequencies.
        num_classes: K.
    """

    recurrent: Recurrent
    weight: Float[Array, "two_hidden outputs"]
    bias: Float[Array, " outputs"]
    num_classes: int = eqx.field(static=True)

    def __init__(
        self,
        num_frequencies: int,
        num_classes: int,
        *,
        hidden_size: int = 192,
        num_layers: int = 3,
        cell: str = "minimal",
        key: Array,
    ):
        """A network of random weights, which the key determines.

        Args:
            num_frequencies: F.
            num_classes: K.
            hidden_size: states of each direction of time.
            num_layers: of the recurrence.
            cell: "minimal" for gates that depend on the input alone, or "lstm", of which the paper has 3 layers of 600.
            key: of the weights.

        Raises:
            InputError: for a size below 1 or a cell that is not known.
        """
        for name, value in (("num_frequencies", num_frequencies), ("num_classes", num_classes),
                            ("hidden_size", hidden_size), ("num_layers", num_layers)):  # fmt: skip
            whole_number(name, value, 1)
        one_of("cell", cell, CELLS)
        key_recurrent, key_weight = jax.random.split(key)
        self.recurrent = Recurrent(num_frequencies, hidden_size, num_layers, cell=cell, key=key_recurrent)
        outputs = num_frequencies * num_classes
        self.weight = jax.random.normal(key_weight, (2 * hidden_size, outputs)) * (2 * hidden_size) ** -0.5
        self.bias = jnp.zeros(outputs)
        self.num_classes = num_classes

    @property
    def num_frequencies(self) -> int:
        """F."""
        return len(self.bias) // self.num_classes

    def logits(self, mixture: Complex[Array, "f t m"]) -> Float[Array, "f t k"]:
        """Logarithms of the classes' probabilities, up to a constant of each bin; float32 at least.

        Raises:
            InputError: for another number of frequencies.
        """
        if len(mixture) != self.num_frequencies:
            raise InputError(f"mixture must have the network's {self.num_frequencies} frequencies, got {len(mixture)}")
        power = jnp.abs(mixture[..., 0]) ** 2
        mean = power.mean()
        level = jnp.log10(power / jnp.where(mean > 0, mean, 1) + _FLOOR).T
        # What colours the whole recording, its room or its microphone, tells nobody apart.
        features = level - level.mean(0, keepdims=True)
        outputs = self.recurrent(features).astype(self.weight.dtype) @ self.weight + self.bias[None]
        return jnp.swapaxes(at_least_single(outputs).reshape(len(features), -1, self.num_classes), 0, 1)

    def __call__(self, mixture: Complex[Array, "f t m"], *rest: Array) -> dict[str, Float[Array, "f t k"]]:
        """Probabilities of the classes, {"source": (F, T, K)}."""
        return {"source": jax.nn.softmax(self.logits(mixture), -1)}
