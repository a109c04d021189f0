"""What the truth allows: masks and filters made from the sources' images, and the mixture as it is."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from observation import Estimate

from vbss.audio import STFT, apply_masks, multichannel_wiener
from vbss.scenes import Scene
from vbss.settings import Settings


def untouched(scene: Scene) -> Estimate:
    """The mixture at microphone 0, for every source."""
    return Estimate(np.repeat(scene.mixture[:1], len(scene.images), axis=0))


def ideal_mask(scene: Scene, *, mask: str, output: str) -> Estimate:
    """Sources by the ideal `mask`, "binary" or "ratio", of their images at microphone 0.

    The binary mask gives a bin to the loudest source; the ratio mask shares it in proportion to the magnitudes.
    `output` is "masked", for the mixture at microphone 0 times the mask, or "wiener", for the multichannel Wiener
    filter of the masks, as in `vbss.separate`; the transform is also as there.
    """
    stft = Settings().stft(scene.sample_rate, scene.mixture.shape[1])
    signals = (jnp.asarray(scene.mixture, jnp.float32), jnp.asarray(scene.images[:, 0], jnp.float32))
    return Estimate(np.asarray(_by_ideal_mask(stft, *signals, mask, output)))


@eqx.filter_jit
def _by_ideal_mask(
    stft: STFT,
    mixture: Float[Array, "microphones samples"],
    images: Float[Array, "sources samples"],
    mask: str,
    output: str,
) -> Float[Array, "sources samples"]:
    spectrogram = jnp.moveaxis(stft.forward(mixture), 0, -1)
    magnitudes = jnp.abs(stft.forward(images))
    masks = jnp.moveaxis(_binary(magnitudes) if mask == "binary" else _ratio(magnitudes), 0, -1)
    separated = apply_masks(spectrogram, masks) if output == "masked" else multichannel_wiener(spectrogram, masks)
    return stft.inverse(separated, mixture.shape[1])


def _binary(magnitudes: Float[Array, "sources frames frequencies"]) -> Float[Array, "sources frames frequencies"]:
    loudest = jnp.argmax(magnitudes, axis=0)
    return (loudest[None] == jnp.arange(len(magnitudes))[:, None, None]).astype(magnitudes.dtype)


def _ratio(magnitudes: Float[Array, "sources frames frequencies"]) -> Float[Array, "sources frames frequencies"]:
    total = jnp.sum(magnitudes, axis=0, keepdims=True)
    return jnp.where(total > 0, magnitudes / jnp.where(total > 0, total, 1), 1 / len(magnitudes))
