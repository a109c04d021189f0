"""Separation by a trained network: one microphone alone, or the start of a model of all of them."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from vbss.audio import STFT, Recording, apply_masks
from vbss.audio.array_recording import ArrayRecording
from vbss.audio.faults import alone_warnings
from vbss.errors import InputError, whole_number
from vbss.models import LDACGMM
from vbss.models.cgmm_start import direction_fit, directions_apart, mean_power
from vbss.neural.rates import as_recorded, at_rate_of, band_warnings
from vbss.neural.trained import TrainedSeparator
from vbss.separation.clock import Clock
from vbss.separation.results import Separation, shares
from vbss.separation.whole import separate_recorded
from vbss.settings import ARRAY_MODELS, AUTO, Settings
from vbss.training import spatial_model

_FAINT = 1e-3  # of the energy of all sources: 30 dB below


@dataclass(frozen=True)
class NeuralSeparation:
    """What `vbss.separate_neural` found; sources are in the order of their energy, the strongest first.

    Attributes:
        sources: each source at the recording's rate, length and level. Of a recording whose rate is above the
            network's, what is above half of the latter is lost.
        sample_rate: Hz.
        masks: the probability that a source owns a bin of `stft`; those of all the network's classes add up to one.
        classes: which class of the network each source is.
        stft: the analysis, at the network's rate.
        energy_shares: each source's share of the energy of all `sources`.
        warnings: reasons to doubt the result, a sentence each.
        seconds: wall-clock time of the stages in order; a first call includes compilation.
    """

    sources: Float[np.ndarray, "sources samples"]
    sample_rate: int
    masks: Float[np.ndarray, "frames frequencies sources"]
    classes: Int[np.ndarray, " sources"]
    stft: STFT
    energy_shares: Float[np.ndarray, " sources"]
    warnings: tuple[str, ...]
    seconds: dict[str, float]


def separate_neural(
    recording: Recording, trained: TrainedSeparator, num_sources: int | np.integer | None = None
) -> NeuralSeparation:
    """Separate a recording of one microphone by a network that was trained on mixtures (AVI-cGMM).

    The network's masks times the mixture: the posterior of `vbss.models.LDACGMM` without any iteration.

    Args:
        recording: of one channel, at the network's sample rate or above. A constant offset is removed.
        trained: a file made by `vbss train` is read by `vbss.load`.
        num_sources: how many sources are wanted, the strongest; by default as many as the network tells apart.

    Raises:
        InputError: if the recording has several channels, is at a lower rate than the network's, shorter than a
            window or constant, or more sources are wanted than the network tells apart.
    """
    _check_trained(trained)
    wanted = trained.num_classes if num_sources is None else num_sources
    num_sources = whole_number("num_sources", wanted, 1, trained.num_classes)
    if not isinstance(recording, Recording):
        raise InputError(f"recording must be a vbss.audio.Recording, got {type(recording).__name__}.")
    if len(recording.samples) != 1:
        raise InputError(
            f"recording must have one channel, got {len(recording.samples)}; of several microphones "
            "whose positions are known, `vbss.separate_from_network` takes it (on the command line: --array)."
        )
    clock = Clock({})
    level = np.abs(recording.samples).max()  # masks do not depend on it, but the range of float32 does
    samples = at_rate_of(recording, trained.stft)[0] / level
    masks, spectrograms = clock("network", _separated(trained, jnp.asarray(samples, jnp.float32)))
    sounds = np.asarray(clock("filter", trained.stft.inverse(spectrograms, len(samples))))
    energies = np.sum(np.square(sounds, dtype=np.float64), axis=1)
    order = np.argsort(-energies, kind="stable")[:num_sources]
    faint = [
        f"source {place} has less than a thousandth of the energy: there may be fewer than {num_sources} sources."
        for place, share in enumerate(shares(energies[order]), 1)
        if share < _FAINT
    ]
    return NeuralSeparation(
        sources=as_recorded(level * sounds[order], trained.sample_rate, recording),
        sample_rate=recording.sample_rate,
        masks=np.asarray(masks)[..., order],
        classes=order,
        stft=trained.stft,
        energy_shares=shares(energies[order]),
        warnings=(
            *band_warnings(recording, trained.stft),
            *alone_warnings(recording.samples, recording.sample_rate),
            *faint,
        ),
        seconds=clock.seconds,
    )


def separate_from_network(
    recording: Recording,
    microphone_positions: Float[np.ndarray, "microphones 3"],
    trained: TrainedSeparator,
    num_sources: int | np.integer | str | None = None,
    *,
    reference_microphone: int | np.integer = 0,
    progress: Any = None,
    **settings: Any,
) -> Separation:
    """`vbss.separate` from where a network says that sources are (EM-cGMM with a neural start).

    The network's masks of the reference microphone say by the corrected equation (18) which direction each class has,
    and from there the mixture model starts; sources are in the order of the network's classes.

    Args:
        recording: one channel per microphone, at the network's sample rate or above.
        microphone_positions: metres.
        trained: see `separate_neural`.
        num_sources: by default all that the network tells apart; fewer are those of the most energy. "auto" counts
            them: of the network's classes, sources are those that stand out from diffuse sound in their directions
            (`vbss.counting.count_sources`).
        reference_microphone, progress, settings: as of `vbss.separate`.

    Raises:
        InputError: as `vbss.separate` and `separate_neural` do, or for a model that has no directions.
    """
    _check_trained(trained)
    is_counted = isinstance(num_sources, str) and num_sources == AUTO
    if not is_counted:
        wanted = trained.num_classes if num_sources is None else num_sources
        num_sources = whole_number("num_sources", wanted, 1, trained.num_classes)
    if microphone_positions is None:
        raise InputError(
            "microphone_positions must be given: of one microphone alone, `vbss.separate_neural` takes it."
        )
    recorded = ArrayRecording.check(recording, microphone_positions, reference_microphone)
    chosen = Settings(**settings).of_array(True)
    if chosen.pipeline.is_blind:
        raise InputError(f"model must be one of {', '.join(ARRAY_MODELS)} for a start by directions.")
    whole = Recording(recorded.samples, recorded.sample_rate)
    samples = at_rate_of(whole, trained.stft)
    positions: Any = recorded.microphone_positions
    model = spatial_model(positions, trained.stft, trained.num_classes, chosen.num_directions)
    directions, energies = _directions(trained, model, jnp.asarray(samples, jnp.float32), recorded.reference_microphone)
    start = np.asarray(directions)
    if not is_counted:
        start = start[np.sort(np.argsort(-np.asarray(energies), kind="stable")[:num_sources])]
    return separate_recorded(recorded, AUTO if is_counted else num_sources, chosen, progress, start=start)


def _check_trained(trained: Any) -> None:
    if not isinstance(trained, TrainedSeparator):
        raise InputError(f"trained must be a TrainedSeparator, as vbss train makes it, got {type(trained).__name__}")
    weights = jax.tree.leaves(eqx.filter(trained, eqx.is_inexact_array))
    if not all(np.isfinite(leaf).all() for leaf in weights):
        raise InputError("trained holds weights that are infinite or nan: its training failed, or the file was changed")
    if trained.network.num_frequencies != len(trained.stft.frequencies):
        raise InputError(
            f"trained has a network of {trained.network.num_frequencies} frequencies, its transform has "
            f"{len(trained.stft.frequencies)}"
        )


@eqx.filter_jit
def _separated(
    trained: TrainedSeparator, samples: Float[Array, " samples"]
) -> tuple[Float[Array, "frames frequencies classes"], Complex[Array, "classes frames frequencies"]]:
    """Masks, and the spectrograms that they leave."""
    spectrogram = trained.stft.forward(samples)
    masks = jnp.swapaxes(trained.network(spectrogram.T[..., None])["source"], 0, 1)
    return masks, apply_masks(spectrogram[..., None], masks)


@eqx.filter_jit
def _directions(
    trained: TrainedSeparator, model: LDACGMM, samples: Float[Array, "microphones samples"], reference: int
) -> tuple[Float[Array, "classes directions"], Float[Array, " classes"]]:
    """Where each class is, by the corrected equation (18), and its energy at the reference."""
    mixture = jnp.moveaxis(trained.stft.forward(samples), (0, 1, 2), (2, 1, 0))
    masks = trained.network(mixture[..., reference, None])["source"]
    fit = direction_fit(model, mixture, masks, mean_power(mixture))
    power = mixture[..., reference].real ** 2 + mixture[..., reference].imag ** 2
    energies = jnp.einsum("ft,ftk->k", power, masks)
    return directions_apart(model, fit, energies), energies
