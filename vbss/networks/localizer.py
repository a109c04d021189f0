"""The network that says where a source is, from how well each direction fits its bins."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.errors import whole_number

_NUM_LAYERS = 3


class Localizer(eqx.Module):
    """log q(w) = omega + three layers of convolutions over directions with a filter size of 1, of all classes.

    The last layer starts at zero: before training this is the optimum of q(w) for directions that are all as likely.

    Source: Deep Bayesian cGMM, equation (13) and section 4.2. Its inputs are sums over all bins of a recording; here
    layers work on their means over bins, from the mean over directions, whose size does not depend on its length.

    Attributes:
        weights, biases: of each layer.
    """

    weights: tuple[Float[Array, "input output"], ...]
    biases: tuple[Float[Array, " output"], ...]

    def __init__(self, num_classes: int, num_filters: int | None = None, *, key: Array):
        """A network of random weights, which the key determines.

        Args:
            num_classes: K.
            num_filters: of the layers but the last; by default K, as in the paper.
            key: of the weights.
        """
        num_classes = whole_number("num_classes", num_classes, 1)
        hidden = num_classes if num_filters is None else whole_number("num_filters", num_filters, 1)
        sizes = [num_classes, *[hidden] * (_NUM_LAYERS - 1), num_classes]
        keys = jax.random.split(key, _NUM_LAYERS - 1)
        inner = [jax.random.normal(k, (a, b)) * (2 / a) ** 0.5 for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]
        self.weights = (*inner, jnp.zeros((hidden, num_classes)))
        self.biases = tuple(jnp.zeros(size) for size in sizes[1:])

    def __call__(self, fit: Float[Array, "k d"], num_bins: int) -> Float[Array, "k d"]:
        """Logarithms of q(w), up to a constant of each class.

        Args:
            fit: omega, equation (14): nats by which each direction fits each class's bins.
            num_bins: over which it is summed.
        """
        means = (fit - fit.mean(-1, keepdims=True)) / num_bins
        values = means.T
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = values if number == 0 else jax.nn.relu(values)
            # Not in half precision: the last product is multiplied by the number of bins.
            values = values @ weight.astype(means.dtype) + bias.astype(means.dtype)[None]
        return (means + values.T) * num_bins
