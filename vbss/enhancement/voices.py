"""Voices out of a mixture in one pass: an autoencoder for each speaker, from the mixture's magnitudes to the speaker's.

Source: Pandey, Kumar and Namboodiri, "Monaural audio source separation using variational autoencoders" (2018).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.audio import STFT, Recording
from vbss.enhancement.trained import check_finite
from vbss.enhancement.training import SETTINGS, check_corpora, in_single_precision
from vbss.errors import InputError, whole_number, whole_numbers
from vbss.inference import AmortisedNormal
from vbss.models import MagnitudeVAE
from vbss.networks.codes import CodeNetwork
from vbss.networks.magnitude_coder import MagnitudeDecoder, MagnitudeEncoder
from vbss.neural.rates import as_recorded, at_rate_of
from vbss.training import Training, TrainingSettings, VoiceMixtures, train
from vbss.training.settings import settings_or


class TrainedVoice(eqx.Module):
    """What reads one speaker's magnitudes from those of a mixture; see `vbss.load`.

    Attributes:
        encoder: says q of the codes, from the mixture.
        decoder: says mean and variance of the speaker's magnitudes, where the mixture's mean power is 1.
        stft: the transform.
        context: frames that the networks see together.
    """

    encoder: MagnitudeEncoder
    decoder: MagnitudeDecoder
    stft: STFT
    context: int = eqx.field(static=True, default=1)


class VoiceTraining(NamedTuple):
    """What `vbss.enhancement.train_voice` gives.

    Attributes:
        voice: with the networks as they were best on the validation corpus.
        training: its history and how it ended.
    """

    voice: TrainedVoice
    training: Training


def train_voice(
    corpus: VoiceMixtures,
    validation: VoiceMixtures,
    *,
    hidden_sizes: Sequence[int] = (128,),
    num_codes: int = 64,
    warm_up: float = 10.0,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int, float], Any] | None = None,
) -> VoiceTraining:
    """Train an autoencoder (`vbss.models.MagnitudeVAE`) to explain a voice from what is heard of mixtures.

    Args:
        corpus: mixtures in which the speaker is heard.
        validation: others.
        hidden_sizes: of the decoder's layers between codes and spectrum, and backwards of the encoder's; several are
            the paper's deep autoencoder, (128, 192, 256).
        num_codes: L, of a frame.
        warm_up: of `vbss.AmortisedNormal`.
        settings: by default 100 epochs of batches of 16 stretches at most; the seed is also that of the weights.
        folder, progress: as of `vbss.train`.

    Raises:
        InputError: as `vbss.train` does, or if the corpora differ in their transform.
    """
    settings = settings_or(SETTINGS, settings)
    check_corpora(VoiceMixtures, corpus, validation)
    key_encoder, key_decoder = jax.random.split(jax.random.key(settings.seed))
    size, sizes = corpus.context * len(corpus.stft.frequencies), whole_numbers("hidden_sizes", hidden_sizes, 1)
    num_codes = whole_number("num_codes", num_codes, 1)
    encoder = in_single_precision(MagnitudeEncoder(size, sizes[::-1], num_codes, key=key_encoder))
    decoder = in_single_precision(MagnitudeDecoder(num_codes, sizes, size, key=key_decoder))
    amortised = AmortisedNormal(CodeNetwork((encoder,), ("codes",)), warm_up=warm_up)
    training = train(MagnitudeVAE(decoder), amortised, corpus, validation, settings, folder=folder, progress=progress)
    best: Any = training
    networks = best.amortised.network.encoders[0], best.model.decoder
    return VoiceTraining(TrainedVoice(*networks, corpus.stft, corpus.context), training)


@dataclass(frozen=True)
class EstimatedVoices:
    """What `vbss.enhancement.estimate_voices` heard.

    Attributes:
        sources: at the recording's rate, length and level.
        sample_rate: Hz.
        variance: of each source, that of its magnitudes, which the network expects, over their power: the less, the
            surer. It falls as the speaker is louder than the others.
        code_variance: of each source, the mean variance of its codes' posterior, which the paper takes for that.
        stft: the analysis, at the networks' rate.
    """

    sources: Float[np.ndarray, "sources samples"]
    sample_rate: int
    variance: Float[np.ndarray, " sources"]
    code_variance: Float[np.ndarray, " sources"]
    stft: STFT


def estimate_voices(recording: Recording, trained: Sequence[TrainedVoice], *, masks: bool = True) -> EstimatedVoices:
    """Hear each speaker in a recording of one microphone by the speaker's own network, in one pass.

    Args:
        recording: of one channel, at the networks' sample rate or above.
        trained: of each speaker, by `train_voice`; sources are in this order.
        masks: whether sources share the mixture by the squares of what the networks say, so that they sum to it; else
            each has the magnitudes that its network says and the phases of the mixture, as in the paper.

    Raises:
        InputError: if the recording has several channels, is at a lower rate or shorter than a window, there is no
            network, they differ in their transform, or one holds infinite or nan weights.
    """
    if not isinstance(trained, Sequence) or not trained or any(not isinstance(v, TrainedVoice) for v in trained):
        raise InputError("trained must be networks of voices, as train_voice makes them, one at least")
    if any(voice.stft != trained[0].stft for voice in trained):
        raise InputError("trained must have one transform")
    if not isinstance(recording, Recording):
        raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
    check_finite(*trained)
    if len(recording.samples) != 1:
        raise InputError(f"recording must have one channel, got {len(recording.samples)}")
    stft = trained[0].stft
    (sound,) = at_rate_of(recording, stft)
    peak = np.abs(sound).max() or 1
    heard, variance, code_variance = _heard(tuple(trained), jnp.asarray(sound / peak, jnp.float32), bool(masks))
    sources = as_recorded(peak * np.asarray(heard), stft.sample_rate, recording)
    return EstimatedVoices(sources, recording.sample_rate, np.asarray(variance), np.asarray(code_variance), stft)


@eqx.filter_jit
def _heard(
    trained: tuple[TrainedVoice, ...], sound: Float[Array, " samples"], masks: bool
) -> tuple[Float[Array, "sources samples"], Float[Array, " sources"], Float[Array, " sources"]]:
    stft = trained[0].stft
    mixture: Complex[Array, "n f"] = stft.forward(sound)
    power = mixture.real**2 + mixture.imag**2
    level = power.mean()
    magnitudes, variances, code_variances = [], [], []
    for voice in trained:
        missing = -len(power) % voice.context
        rows = jnp.pad(power, ((0, missing), (0, 0)), mode="edge").reshape(-1, voice.context * power.shape[1])
        codes, log_variance = voice.encoder(rows)
        mean, log_of_magnitudes = voice.decoder(codes)
        magnitudes.append(mean.reshape(-1, power.shape[1])[: len(power)])
        variances.append(mean.shape[1] * jnp.exp(log_of_magnitudes).sum() / (mean**2).sum())
        code_variances.append(jnp.exp(log_variance).mean())
    magnitude, tiny = jnp.stack(magnitudes), jnp.finfo(power.dtype).tiny
    if masks:
        gain = (magnitude / jnp.maximum(magnitude.max(0), tiny)[None]) ** 2
        gain = gain / jnp.maximum(gain.sum(0), tiny)[None]
    else:
        gain = magnitude * jnp.sqrt(level / jnp.where(power > 0, power, 1))[None]
    sources = stft.inverse(gain.astype(mixture.dtype) * mixture[None], len(sound))
    return sources, jnp.stack(variances), jnp.stack(code_variances)
