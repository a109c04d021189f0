"""Training of autoencoders on speech alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from vbss.enhancement.trained import TrainedSpeech, check_finite
from vbss.errors import InputError, one_of, whole_number, whole_numbers
from vbss.inference import AmortisedNormal
from vbss.inference.loop import fingerprint
from vbss.models import SpectralVAE
from vbss.networks.codes import CodeNetwork
from vbss.networks.recurrent_coder import RecurrentDecoder, RecurrentEncoder
from vbss.networks.spectral_coder import FrameDecoder, FrameEncoder, SpectralDecoder, SpectralEncoder, log_levels
from vbss.training import SpeechSpectra, Training, TrainingSettings, VoiceMixtures, train
from vbss.training.settings import settings_or

SETTINGS = TrainingSettings(batch_size=16, patience=3, stop_after=10, max_epochs=100)
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
    start: TrainedSpeech | None = None,
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
        start: networks from which training goes on, instead of random ones of that architecture and those sizes: what
            is known of all speakers is a good start for one of whom little was recorded.
        settings: by default 100 epochs of batches of 16 stretches at most; the seed is also that of the weights.
        folder, devices, progress: as of `vbss.train`, which goes on with what is in the folder.

    Raises:
        InputError: as `vbss.train` does, or if the corpora, or `start`, differ in their transform.
    """
    settings = settings_or(SETTINGS, settings)
    check_corpora(SpeechSpectra, corpus, validation, start)
    one_of("architecture", architecture, ARCHITECTURES)
    hidden_sizes, num_codes = whole_numbers("hidden_sizes", hidden_sizes, 1), whole_number("num_codes", num_codes, 1)
    if start is None:
        key = jax.random.key(settings.seed)
        encoder, decoder = _networks(architecture, corpus, hidden_sizes, num_codes, key)
    else:
        encoder, decoder = start.encoder, start.decoder
    origin = "" if start is None else _hash_of(start)
    amortised = AmortisedNormal(CodeNetwork((encoder,), ("codes",)), kl_weight=kl_weight, warm_up=warm_up)
    training = train(
        SpectralVAE(decoder), amortised, corpus, validation, settings,
        origin=origin, folder=folder, devices=devices, progress=progress,
    )  # fmt: skip
    best: Any = training
    return SpeechTraining(TrainedSpeech(best.amortised.network.encoders[0], best.model.decoder, corpus.stft), training)


def train_on_mixtures(
    speech: TrainedSpeech,
    corpus: VoiceMixtures,
    validation: VoiceMixtures,
    *,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int, float], Any] | None = None,
) -> SpeechTraining:
    """Teach the encoder of a speaker's autoencoder to read the speaker's codes from mixtures with others.

    The decoder, and so what the speaker may sound like, stays as it is. `vbss.separate_voices` begins where the
    encoders say: amortised inference, which any algorithm refines.

    Args:
        speech: by `train_speech` of the speaker alone.
        corpus, validation: mixtures in which the speaker is heard.
        settings, folder, devices, progress: as for `train_speech`.

    Raises:
        InputError: as `train_speech`.
    """
    settings = settings_or(SETTINGS, settings)
    check_corpora(VoiceMixtures, corpus, validation, speech)
    amortised = AmortisedNormal(CodeNetwork((speech.encoder,), ("codes",)))
    training = train(
        SpectralVAE(speech.decoder), amortised, corpus, validation, settings,
        frozen=("decoder",), origin=_hash_of(speech), folder=folder, devices=devices, progress=progress,
    )  # fmt: skip
    best: Any = training
    return SpeechTraining(TrainedSpeech(best.amortised.network.encoders[0], speech.decoder, speech.stft), training)


def check_corpora(kind: type, corpus: Any, validation: Any, start: Any = None) -> None:
    """Raise InputError where corpora are not of a kind, or they and what training begins with differ in transform."""
    for name, items in (("corpus", corpus), ("validation", validation)):
        if not isinstance(items, kind):
            raise InputError(f"{name} must be {kind.__name__}, got {type(items).__name__}")
        if items.stft != corpus.stft:
            raise InputError(f"validation must have the transform of corpus, {corpus.stft}, got {items.stft}")
    if start is None:
        return
    if not isinstance(start, TrainedSpeech):
        raise InputError(f"speech to begin with must be a TrainedSpeech, got {type(start).__name__}")
    if start.stft != corpus.stft:
        raise InputError(f"corpus must have the transform of the speech it begins with, {start.stft}")
    check_finite(start)


def _hash_of(speech: TrainedSpeech) -> str:
    """By which other networks to begin with are known."""
    return fingerprint(tuple(jax.tree.leaves(eqx.filter(speech, eqx.is_array))))


def _networks(
    architecture: str, corpus: SpeechSpectra, hidden_sizes: tuple[int, ...], num_codes: int, key: jax.Array
) -> tuple[SpectralEncoder, SpectralDecoder]:
    """Random ones, which know how loud each frequency is on average."""
    key_encoder, key_decoder = jax.random.split(key)
    size = len(corpus.stft.frequencies)
    if architecture == "recurrent":
        if len(hidden_sizes) != 1:
            raise InputError(f"hidden_sizes must be one number for recurrent networks, got {list(hidden_sizes)}")
        encoder: RecurrentEncoder | FrameEncoder = RecurrentEncoder(size, hidden_sizes[0], num_codes, key=key_encoder)
        decoder: RecurrentDecoder | FrameDecoder = RecurrentDecoder(num_codes, hidden_sizes[0], size, key=key_decoder)
    else:
        encoder = FrameEncoder(size, hidden_sizes[::-1], num_codes, key=key_encoder)
        decoder = FrameDecoder(num_codes, hidden_sizes, size, key=key_decoder)
    order = np.random.default_rng(0).permutation(len(corpus))[:_NUM_ITEMS]
    items = [item for item in (corpus[int(index)][0] for index in order) if np.isfinite(item).all()]
    if items:
        loc, scale = log_levels(np.concatenate(items))
        encoder = encoder.with_levels(jnp.asarray(loc), jnp.asarray(scale))
        decoder = decoder.with_levels(jnp.asarray(loc))
    return in_single_precision((encoder, decoder))


def in_single_precision(networks: Any) -> Any:
    """The same with weights of float32, whatever JAX's default is."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, networks)
