"""The network that says which source a bin belongs to, from one microphone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from vbss.errors import InputError, whole_number
from vbss.networks.recurrent import Recurrent

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
        self, num_frequencies: int, num_classes: int, *, hidden_size: int = 256, num_layers: int = 3, key: Array
    ):
        for name, value in (("num_frequencies", num_frequencies), ("num_classes", num_classes),
                            ("hidden_size", hidden_size), ("num_layers", num_layers)):  # fmt: skip
            whole_number(name, value, 1)
        key_recurrent, key_weight = jax.random.split(key)
        self.recurrent = Recurrent(num_frequencies, hidden_size, num_layers, key=key_recurrent)
        outputs = num_frequencies * num_classes
        self.weight = jax.random.normal(key_weight, (2 * hidden_size, outputs)) * (2 * hidden_size) ** -0.5
        self.bias = jnp.zeros(outputs)
        self.num_classes = num_classes

    def __call__(self, mixture: Complex[Array, "f t m"], *rest: Array) -> dict[str, Float[Array, "f t k"]]:
        """Probabilities of the classes, {"source": (F, T, K)}."""
        num_frequencies = len(self.bias) // self.num_classes
        if len(mixture) != num_frequencies:
            raise InputError(f"mixture must have the network's {num_frequencies} frequencies, got {len(mixture)}")
        power = jnp.abs(mixture[..., 0]) ** 2
        mean = power.mean()
        level = jnp.log(power / jnp.where(mean > 0, mean, 1) + _FLOOR).T
        features = ((level - level.mean()) / jnp.log(10.0)).astype(self.weight.dtype)
        states = self.recurrent(features)
        logits = (states @ self.weight + self.bias[None]).reshape(len(states), -1, self.num_classes)
        return {"source": jnp.swapaxes(jax.nn.softmax(logits, -1), 0, 1)}
