"""The first half of a separation where nothing is known of the array: transform, mixture model, masks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from vbss.audio.array_recording import ArrayRecording
from vbss.audio.diffuse import whitened
from vbss.audio.filters import normalize_bins
from vbss.audio.sphering import sphering
from vbss.audio.stft import STFT
from vbss.hermitian import pack
from vbss.inference import fit
from vbss.pipeline import Analysis, Progress
from vbss.posteriors import AbstractPosterior
from vbss.separation.analysis import Located, transformed
from vbss.separation.clock import Clock
from vbss.separation.doubts import failures
from vbss.settings import Settings
from vbss.triangular import batched_solve_lower


def locate(
    recorded: ArrayRecording,
    num_sources: Any,
    settings: Settings,
    progress: Progress | None,
    start_covariances: Float[np.ndarray, "sources frequencies microphones microphones 2"] | None = None,
) -> Located:
    """Masks of the sources; their places are their spatial covariances at the microphones, real and imaginary parts.

    Args:
        num_sources: how many there are.
        start_covariances: the places of the sources in a stretch of the same recording, whose order the sources keep.
            By default, masks at random, and sources in the order of what the masks give them, the most first.
    """
    number = settings.check_num_sources(num_sources)
    stft = settings.stft(recorded.sample_rate, recorded.samples.shape[1])
    clock, key = Clock({}), jax.random.key(settings.seed)
    with settings.in_precision():
        samples, is_lost = jnp.asarray(recorded.samples, float), jnp.asarray(recorded.is_lost)
        whitening, mixture, data = clock("transform", _analysed(stft, samples, is_lost))
        model = settings.pipeline.mixture_model.init(
            number, has_noise=bool(settings.pipeline.has_noise), loading=settings.loading
        )
        if start_covariances is None:
            start = model.start(key, *data)
        else:
            covariances = jax.lax.complex(*jnp.moveaxis(jnp.asarray(start_covariances, float), -1, 0))
            start = _given_start(model, data, whitening, covariances)
        start = clock("start", start)
        solution = fit(
            model, data, settings.inference, key=key, start=start, max_steps=settings.max_steps, progress=progress
        )
        found = clock(
            "mixture model", _found(solution.posterior, whitening, mixture[..., recorded.reference_microphone])
        )
    masks, energies = np.asarray(found[0]), np.asarray(found[2])
    places = np.stack([np.real(found[1]), np.imag(found[1])], -1)
    order = np.arange(number)
    if start_covariances is None:
        order = np.argsort(-energies, kind="stable")
    fields = {
        "azimuths": None,
        "direction_posterior": None,
        "directions": None,
        "masks": masks[..., order],
        "classes": order,
        "reference_microphone": int(recorded.channels[recorded.reference_microphone]),
        "settings": settings,
        "solution": solution,
        "warnings": (*recorded.warnings, *failures(solution)),
        "seconds": clock.seconds,
        "number_probabilities": None,
    }
    is_whole = ~stft.touched_frames(is_lost) if recorded.is_lost.any() else None
    analysis = Analysis(mixture, whitening, (recorded.reference_microphone,), is_whole)
    return Located(fields, stft, analysis, places[order])


@eqx.filter_jit
def _analysed(
    stft: STFT, samples: Float[Array, "microphones samples"], is_lost: Bool[Array, " samples"]
) -> tuple[
    Complex[Array, "frequencies microphones microphones"],
    Complex[Array, "frames frequencies microphones"],
    tuple[Complex[Array, "frequencies frames microphones"], Bool[Array, "frequencies frames"]],
]:
    """The whitening by the recording itself, the spectrogram, and the data that the model takes."""
    mixture, is_observed = transformed(stft, samples, is_lost)
    whitening = sphering(mixture)
    return whitening, mixture, (normalize_bins(whitened(whitening, jnp.swapaxes(mixture, 0, 1))), is_observed)


@eqx.filter_jit
def _given_start(
    model: Any,
    data: tuple,
    whitening: Complex[Array, "frequencies microphones microphones"],
    covariances: Complex[Array, "sources frequencies microphones microphones"],
) -> dict[str, Array]:
    mixture, is_observed = data
    white = jnp.einsum("fmn,kfno,fpo->fkmp", whitening, covariances, whitening.conj(), precision="highest")
    level = jnp.trace(white, axis1=-2, axis2=-1).real[..., None, None] / white.shape[-1]
    return model.given_covariances(mixture, pack(white / level.astype(white.dtype)), is_observed)


@eqx.filter_jit
def _found(
    posterior: AbstractPosterior,
    whitening: Complex[Array, "frequencies microphones microphones"],
    heard: Complex[Array, "frames frequencies"],
) -> tuple[
    Float[Array, "frames frequencies sources"],
    Complex[Array, "sources frequencies microphones microphones"],
    Float[Array, " sources"],
]:
    """The masks, the spatial covariances at the microphones, with tr = M, and the energies of what is heard."""
    # The posterior of an indicator is a categorical distribution, which the general type does not say.
    masks = jnp.swapaxes(posterior["source"].probs, 0, 1)  # pyright: ignore[reportAttributeAccessIssue]
    white = posterior["spatial_covariance"].v  # pyright: ignore[reportAttributeAccessIssue]
    masks = masks[..., : white.shape[1]]  # without the noise
    factor = jnp.broadcast_to(whitening[:, None], white.shape)
    at_microphones = batched_solve_lower(factor, batched_solve_lower(factor, white).conj().mT)  # W^-1 B W^-H
    level = jnp.trace(at_microphones, axis1=-2, axis2=-1).real[..., None, None] / white.shape[-1]
    energies = jnp.einsum("tf,tfk->k", heard.real**2 + heard.imag**2, masks)
    return masks, jnp.swapaxes(at_microphones / level.astype(white.dtype), 0, 1), energies
