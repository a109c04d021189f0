"""Bidirectional recurrent layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vbss.networks.long_short_term import LongShortTerm
from vbss.networks.minimal_gated import MinimalGated
from vbss.networks.precision import at_least_single

CELLS = {"minimal": MinimalGated, "lstm": LongShortTerm}


class Recurrent(eqx.Module):
    """Layers of two recurrences, one in each direction of time, whose states are joined.

    Layers of long short-term memory follow on each other, as in the papers. Each minimal one adds to what it is given.

    Products are computed in the type of the weights, all else in float32 at least.

    Attributes:
        layers: each a pair, forward and backward.
        projection: from the input to what minimal layers add to.
    """

    layers: tuple[tuple[MinimalGated | LongShortTerm, MinimalGated | LongShortTerm], ...]
    projection: Float[Array, "input two_hidden"] | None

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, *, cell: str = "minimal", key: Array):
        key_projection, key_layers = jax.random.split(key)
        self.projection, size = None, input_size
        if cell == "minimal":
            size = 2 * hidden_size
            self.projection = jax.random.normal(key_projection, (input_size, size)) * input_size**-0.5
        layers = []
        for key_layer in jax.random.split(key_layers, num_layers):
            keys = jax.random.split(key_layer)
            layers.append(tuple(CELLS[cell](size, hidden_size, bool(way), keys[way]) for way in (0, 1)))
            size = 2 * hidden_size
        self.layers = tuple(layers)

    def __call__(self, values: Float[Array, "t input"]) -> Float[Array, "t two_hidden"]:
        dtype = self.layers[0][0].weight.dtype
        if self.projection is None:
            for layer in self.layers:
                values = _both_ways(layer, values.astype(dtype))
            return values
        values = at_least_single(values.astype(dtype) @ self.projection)
        for layer in self.layers:
            values = values + _both_ways(layer, _normalised(values).astype(dtype))
        return _normalised(values)


def _both_ways(layer: tuple, values: Float[Array, "t size"]) -> Float[Array, "t two_hidden"]:
    return jnp.concatenate([direction(values) for direction in layer], -1)


def _normalised(values: Float[Array, "t size"]) -> Float[Array, "t size"]:
    """Of zero mean and unit variance in each frame."""
    values = values - values.mean(-1, keepdims=True)
    return values * jax.lax.rsqrt((values**2).mean(-1, keepdims=True) + 1e-5)
