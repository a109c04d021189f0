"""The network that says q of codes: what it is shown of powers in noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from vbss.networks.codes import CodeNetwork
from vbss.networks.spectral_coder import FrameEncoder


def test_steady_noise_is_taken_off_and_stays():
    encoder = FrameEncoder(5, [4], 2, key=jr.key(0))
    power, noise = jr.exponential(jr.key(1), (6, 5)), jnp.array([0.0, 0.1, 0.5, 1.0, 100.0])
    plain, told = CodeNetwork((encoder,), ("codes",)), CodeNetwork((encoder,), ("codes",), noise)
    rest = np.maximum(np.asarray(power) - np.asarray(noise), 0.01 * np.asarray(power))
    for ours, expected in zip(told(power)["codes"], plain(jnp.asarray(rest))["codes"], strict=True):
        np.testing.assert_allclose(ours, expected)
    slope = eqx.filter_grad(lambda network: network(power)["codes"][0].sum())(told)
    assert not slope.noise.any() and all(leaf.any() for leaf in jax.tree.leaves(slope.encoders[0].layers.weights))
