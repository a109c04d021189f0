"""Layers of weights with a nonlinearity between them."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.errors import InputError, one_of, whole_numbers

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "relu": jax.nn.relu}


class Perceptron(eqx.Module):
    """y = W_n f(... f(W_1 x + b_1) ...) + b_n.

    Attributes:
        weights, biases: of each layer.
        activation: f, "tanh" or "relu".
    """

    weights: tuple[Float[Array, "inputs outputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]
    activation: str = eqx.field(static=True)

    def __init__(self, sizes: Sequence[int], *, activation: str = "tanh", key: Array):
        """Layers of random weights, which the key determines.

        Args:
            sizes: of the input, of every layer, and so of the output: two at least.

        Raises:
            InputError: for fewer sizes, one below 1, or an activation that is not known.
        """
        sizes = whole_numbers("sizes", sizes, 1)
        if len(sizes) < 2:
            raise InputError(f"sizes must be two at least, of input and output, got {list(sizes)}")
        self.activation = one_of("activation", activation, ACTIVATIONS)
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = tuple(
            jax.random.normal(key, shape) * shape[0] ** -0.5 for key, shape in zip(keys, shapes, strict=True)
        )
        self.biases = tuple(jnp.zeros(size) for size in sizes[1:])

    def __call__(self, values: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        shape = (1,) * (values.ndim - 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = values if number == 0 else ACTIVATIONS[self.activation](values)
            values = values @ weight + bias.reshape(*shape, -1)
        return values

    def with_last_bias(self, bias: Float[Array, " outputs"]) -> "Perceptron":
        """The same with another bias of the output."""
        return eqx.tree_at(lambda layers: layers.biases[-1], self, bias)
