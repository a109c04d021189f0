"""Another prior of codes by coordinates: decoders and encoders in them say what they said."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from vbss.networks.informed_coder import InformedDecoder, InformedEncoder
from vbss.networks.spectral_coder import FrameDecoder, FrameEncoder


def test_coordinates_are_moved_and_scaled():
    decoder, encoder = FrameDecoder(2, [4], 5, key=jr.key(0)), FrameEncoder(5, [4], 2, key=jr.key(1))
    power = jnp.asarray(np.random.default_rng(0).exponential(size=(3, 5)))
    mean, log_variance = encoder(power)
    scale = 2 * jnp.exp(log_variance / 2)
    informed = InformedDecoder(decoder, mean, scale)
    codes = jr.normal(jr.key(2), (3, 2))
    np.testing.assert_allclose(informed(codes), decoder(mean + scale * codes))
    batched = jax.vmap(informed)(codes[None])
    np.testing.assert_allclose(informed(codes[None]), batched)
    assert informed.num_codes == 2 and informed.num_frequencies == 5
    own_mean, own_log_variance = InformedEncoder(encoder, mean, scale)(power)
    np.testing.assert_allclose(own_mean, 0, atol=1e-12)
    np.testing.assert_allclose(own_log_variance, -2 * np.log(2), rtol=1e-6)
    other, other_log_variance = encoder(power**2)
    said, said_log_variance = InformedEncoder(encoder, mean, scale)(power**2)
    np.testing.assert_allclose(mean + scale * said, other)
    np.testing.assert_allclose(scale**2 * jnp.exp(said_log_variance), jnp.exp(other_log_variance))
