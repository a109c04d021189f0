"""Training of autoencoders on speech alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbss.enhancement.trained import TrainedSpeech
from vbss.errors import InputError, one_of
from vbss.inference import AmortisedNormal
from vbss.models import SpectralVAE
from vbss.networks.codes import CodeNetwork
from vbss.networks.recurrent_coder import RecurrentDecoder, RecurrentEncoder
from vbss.networks.spectral_coder import FrameDecoder, FrameEncoder, SpectralDecoder, SpectralEncoder, log_levels
from vbss.training import SpeechSpectra, Training, TrainingSettings, train

_SETTINGS = TrainingSettings(batch_size=16, patience=3, stop_after=10, max_epochs=100)
_NUM_ITEMS = 200  # from which the levels of frequencies are read
ARCHITECTURES = ("frames", "recurrent")


class SpeechTraining(NamedTuple):
    """What `vbss.train_speech` gives.

    Attributes:
        speech: with the networks as they were best on the validation corpus.
        training: its history and how it ended.
    """

    speech: TrainedSpeech
    training: Training


def train_speech(
    corpus: SpeechSpectra,
    validation: SpeechSpectra,
    *,
    architecture: str = "frames",
    hidden_sizes: Sequence[int] = (128,),
    num_codes: int = 32,
    kl_weight: float = 1.0,
    warm_up: float = 10.0,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int, float], Any] | None = None,
) -> SpeechTraining:
    """Train an autoencoder of speech spectra (`vbss.models.SpectralVAE`), for `vbss.enhance`.

    Args:
        corpus: clean speech.
        validation: other clean speech, best of other speakers.
        architecture: "frames", which looks at each frame by itself, or "recurrent", at all of a stretch.
        hidden_sizes: of the decoder's layers between codes and spectrum, and backwards of the encoder's; a recurrent
            one has a single layer, with so many states in each direction of time.
        num_codes: L, of a frame.
        kl_weight, warm_up: of `vbss.AmortisedNormal`.
        settings: by default 100 epochs of batches of 16 stretches at most; the seed is also that of the weights.
        folder, devices, progress: as of `vbss.train`, which goes on with what is in the folder.

    Raises:
        InputError: as `vbss.train` does, or if the corpora differ in their transform.
    """
    settings = _SETTINGS if settings is None else settings
    for name, items in (("corpus", corpus), ("validation", validation)):
        if not isinstance(items, SpeechSpectra):
            raise InputError(f"{name} must be SpeechSpectra, got {type(items).__name__}")
    if corpus.stft != validation.stft:
        raise InputError(f"validation must have the transform of corpus, {corpus.stft}, got {validation.stft}")
    one_of("architecture", architecture, ARCHITECTURES)
    key = jax.random.key(settings.seed)
    encoder, decoder = _networks(architecture, corpus, tuple(hidden_sizes), num_codes, key)
    amortised = AmortisedNormal(CodeNetwork((encoder,), ("codes",)), kl_weight=kl_weight, warm_up=warm_up)
    training = train(
        SpectralVAE(decoder), amortised, corpus, validation, settings, folder=folder, devices=devices, progress=progress
    )
    best: Any = training
    return SpeechTraining(TrainedSpeech(best.amortised.network.encoders[0], best.model.decoder, corpus.stft), training)


def _networks(
    architecture: str, corpus: SpeechSpectra, hidden_sizes: tuple[int, ...], num_codes: int, key: jax.Array
) -> tuple[SpectralEncoder, SpectralDecoder]:
    """Random ones, which know how loud each frequency is on average."""
    key_encoder, key_decoder = jax.random.split(key)
    size = len(corpus.stft.frequencies)
    if architecture == "recurrent":
        if len(hidden_sizes) != 1:
            raise InputError(f"hidden_sizes must be one number for recurrent networks, got {list(hidden_sizes)}")
        encoder: SpectralEncoder = RecurrentEncoder(size, hidden_sizes[0], num_codes, key=key_encoder)
        decoder: SpectralDecoder = RecurrentDecoder(num_codes, hidden_sizes[0], size, key=key_decoder)
    else:
        encoder = FrameEncoder(size, hidden_sizes[::-1], num_codes, key=key_encoder)
        decoder = FrameDecoder(num_codes, hidden_sizes, size, key=key_decoder)
    order = np.random.default_rng(0).permutation(len(corpus))[:_NUM_ITEMS]
    items = [item for item in (corpus[int(index)][0] for index in order) if np.isfinite(item).all()]
    if items:
        loc, scale = log_levels(np.concatenate(items))
        encoder = encoder.with_levels(jnp.asarray(loc), jnp.asarray(scale))
        decoder = decoder.with_levels(jnp.asarray(loc))
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, (encoder, decoder)
    )
