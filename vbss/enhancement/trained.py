"""A trained autoencoder of a sound's spectra together with its transform: what `vbss train --model vae` keeps."""

import equinox as eqx
import jax
import numpy as np

from vbss.audio import STFT
from vbss.errors import InputError
from vbss.networks.spectral_coder import SpectralDecoder, SpectralEncoder


class TrainedSpeech(eqx.Module):
    """What speech may be: a decoder, the encoder that it was trained with, and the transform; see `vbss.load`.

    Attributes:
        encoder: says q of the codes of speech alone, and roughly of speech in noise.
        decoder: says the variances of speech.
        stft: the transform, at the rate of the sound that the networks know.
    """

    encoder: SpectralEncoder
    decoder: SpectralDecoder
    stft: STFT

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.stft.sample_rate


def check_finite(*trained: eqx.Module) -> None:
    """Raise InputError for networks with weights that are infinite or nan."""
    leaves = jax.tree.leaves(eqx.filter(trained, eqx.is_inexact_array))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise InputError("trained holds weights that are infinite or nan: its training failed, or the file was changed")
