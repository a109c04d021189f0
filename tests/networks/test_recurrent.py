"""Recurrent layers: gradients by hand are those of the plain loop, and time runs the way it should."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from vbss.networks import Recurrent
from vbss.networks.long_short_term import LongShortTerm
from vbss.networks.recurrent import CELLS

FRAMES, INPUTS, HIDDEN = 7, 3, 4


def plain(cell, values):
    """The textbook's recurrence, in a Python loop that is differentiated as it stands."""
    h = c = jnp.zeros(HIDDEN)
    states = []
    for value in values[::-1] if cell.is_backward else values:
        i, f, g, o = jnp.split(value @ cell.weight + h @ cell.recurrent_weight + cell.bias, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        states.append(h)
    return jnp.stack(states[::-1] if cell.is_backward else states)


@pytest.mark.parametrize("is_backward", [False, True])
def test_long_short_term_memory_has_the_values_and_gradients_of_the_plain_loop(is_backward):
    cell = LongShortTerm(INPUTS, HIDDEN, is_backward, jr.key(0))
    values, weights = jr.normal(jr.key(1), (2, FRAMES, INPUTS)), jr.normal(jr.key(2), (FRAMES, HIDDEN))
    np.testing.assert_allclose(cell(values[0]), plain(cell, values[0]), rtol=1e-12)

    def loss(apply):
        return lambda both: (jax.vmap(lambda v: apply(both[0], v))(both[1]) * weights[None]).sum()

    found = eqx.filter_grad(loss(lambda cell, v: cell(v)))((cell, values))
    expected = eqx.filter_grad(loss(plain))((cell, values))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS.values())
@pytest.mark.parametrize("is_backward", [False, True])
def test_a_direction_hears_only_what_it_has_passed(cell, is_backward):
    layer = cell(INPUTS, HIDDEN, is_backward, jr.key(0))
    heard = jax.jacobian(lambda values: layer(values)[3])(jr.normal(jr.key(1), (FRAMES, INPUTS)))
    of_frames = np.abs(heard).sum((0, 2)) > 0
    assert of_frames.tolist() == [(i >= 3) if is_backward else (i <= 3) for i in range(FRAMES)]


@pytest.mark.parametrize("cell", CELLS)
def test_layers_hear_all_frames(cell):
    layers = Recurrent(INPUTS, HIDDEN, 2, cell=cell, key=jr.key(0))
    heard = jax.jacobian(lambda values: layers(values)[3])(jr.normal(jr.key(1), (FRAMES, INPUTS)))
    assert (np.abs(heard).sum((0, 2)) > 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_half_precision_changes_little_and_its_states_stay_single(cell):
    layers = Recurrent(INPUTS, HIDDEN, 2, cell=cell, key=jr.key(0))
    values = jr.normal(jr.key(1), (FRAMES, INPUTS))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), layers)(values)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, layers(values), atol=0.03)
