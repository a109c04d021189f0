"""Baselines of one-microphone separation of known speakers: a mask, a denoising autoencoder, NMF, and the ideal mask.

Networks are of each speaker, as the autoencoders are, and see the same mixtures (`vbss.training.VoiceMixtures`).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vbss.additive import improved_scalars
from vbss.audio import STFT
from vbss.models.nmf import itakura_saito_nmf
from vbss.networks.perceptron import Perceptron
from vbss.training import SpeechSpectra, VoiceMixtures

_BATCH, _EPOCHS, _STOP_AFTER, _RATE = 16, 40, 5, 1e-3
_SPECTRA, _STEPS = 40, 100
_TINY = 1e-10


class MaskNetwork(eqx.Module):
    """The speaker's share of the mixture's magnitudes: two rectified layers of 512, after Huang et al. (2014)."""

    layers: Perceptron

    def __init__(self, size: int, key: Array):
        self.layers = Perceptron([size, 512, 512, size], activation="relu", key=key)

    def magnitude(self, mixture: Float[Array, "*b t f"]) -> Float[Array, "*b t f"]:
        return jax.nn.sigmoid(self.layers(jnp.log(mixture + 1e-3))) * mixture


class Denoiser(eqx.Module):
    """A denoising autoencoder of the paper's sizes: magnitudes of the mixture in, those of the speaker out."""

    layers: Perceptron

    def __init__(self, size: int, key: Array):
        self.layers = Perceptron([size, 128, 64, 128, size], activation="relu", key=key)

    def magnitude(self, mixture: Float[Array, "*b t f"]) -> Float[Array, "*b t f"]:
        return jax.nn.softplus(self.layers(mixture))


def trained(kind: Callable[..., Any], corpus: VoiceMixtures, validation: VoiceMixtures, seed: int = 0) -> Any:
    """A network that says a speaker's magnitudes with the least squared error, best on the validation corpus."""
    key, key_network = jax.random.split(jax.random.key(seed))
    network: Any = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf,
        kind(len(corpus.stft.frequencies), key_network),
    )
    optimizer = optax.adam(_RATE)

    def loss(network: Any, voice: Array, mixture: Array) -> Array:
        return jnp.mean((network.magnitude(mixture) - voice) ** 2)

    @eqx.filter_jit
    def step(network: Any, state: Any, voice: Array, mixture: Array) -> tuple[Any, Any]:
        change, state = optimizer.update(eqx.filter_grad(loss)(network, voice, mixture), state)
        return eqx.apply_updates(network, change), state

    heard, kept = (
        [np.sqrt(np.stack(part)) for part in zip(*(items[i] for i in range(len(items))), strict=True)]
        for items in (corpus, validation)
    )
    judged = eqx.filter_jit(loss)
    state, best, least, waited = optimizer.init(eqx.filter(network, eqx.is_inexact_array)), network, np.inf, 0
    generator = np.random.default_rng(seed)
    for _ in range(_EPOCHS):
        order = generator.permutation(len(corpus))
        for places in order[: len(order) // _BATCH * _BATCH].reshape(-1, _BATCH):
            network, state = step(network, state, *(jnp.asarray(part[places]) for part in heard))
        error = float(judged(network, *map(jnp.asarray, kept)))
        if error < least:
            best, least, waited = network, error, 0
        elif (waited := waited + 1) == _STOP_AFTER:
            break
    return best


@eqx.filter_jit
def separated(
    networks: tuple[Any, ...], stft: STFT, sound: Float[Array, " samples"], masks: bool
) -> Float[Array, "j samples"]:
    """Each speaker's sound, by shares of the mixture or by its own magnitudes and the mixture's phases."""
    mixture = stft.forward(sound)
    level = jnp.sqrt(jnp.mean(jnp.abs(mixture) ** 2))
    own = jnp.stack([network.magnitude(jnp.abs(mixture) / level) for network in networks])
    shares = own**2 / jnp.maximum((own**2).sum(0)[None], _TINY)
    gains = shares if masks else own * level / jnp.maximum(jnp.abs(mixture)[None], _TINY)
    return stft.inverse(gains * mixture[None], len(sound))


def learnt_spectra(speech: SpeechSpectra, seed: int = 0) -> Float[Array, "f b"]:
    """Of a speaker, by NMF of the speech alone."""
    power = jnp.asarray(np.concatenate([speech[i][0] for i in range(len(speech))])).T[:, None]
    return itakura_saito_nmf(power, _SPECTRA, key=jax.random.key(seed))[0][:, 0]


@eqx.filter_jit
def separated_by_spectra(
    spectra: tuple[Array, ...], stft: STFT, sound: Float[Array, " samples"]
) -> Float[Array, "j samples"]:
    """By activations of the speakers' spectra, which stay as they are, and the shares of what they explain."""
    mixture = stft.forward(sound)
    power = jnp.maximum(jnp.abs(mixture) ** 2, _TINY).T
    all_spectra = jnp.concatenate(spectra, 1)

    def step(_: int, activations: Array) -> Array:
        inverse = 1 / (all_spectra @ activations)
        return improved_scalars(activations, all_spectra.T @ (power * inverse**2), all_spectra.T @ inverse)

    start = jnp.full((all_spectra.shape[1], power.shape[1]), power.mean() / all_spectra.sum(1).mean())
    activations = jax.lax.fori_loop(0, _STEPS, step, start)
    parts = jnp.split(activations, np.cumsum([part.shape[1] for part in spectra])[:-1])
    variances = jnp.stack([own @ part for own, part in zip(spectra, parts, strict=True)])
    shares = variances / variances.sum(0)[None]
    return stft.inverse(shares.swapaxes(-1, -2) * mixture[None], len(sound))


@eqx.filter_jit
def separated_ideally(stft: STFT, sources: Float[Array, "j samples"]) -> Float[Array, "j samples"]:
    """By the true sources' powers: what no mask exceeds by much."""
    spectra = stft.forward(sources)
    power = jnp.abs(spectra) ** 2
    shares = power / jnp.maximum(power.sum(0)[None], _TINY)
    return stft.inverse(shares * spectra.sum(0)[None], sources.shape[1])
