"""Training of separators on mixtures alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vbss.audio.geometry import check_microphone_positions
from vbss.errors import InputError, whole_number
from vbss.networks import ArrayNetwork, Separator
from vbss.neural.trained import TrainedSeparator
from vbss.training import (
    MOST_SOURCES,
    RecordedMixtures,
    SimulatedMixtures,
    SpatialBound,
    Training,
    TrainingSettings,
    spatial_model,
    train,
)
from vbss.training.settings import settings_or

_SETTINGS = TrainingSettings(batch_size=4, patience=2, max_epochs=20)


class NeuralTraining(NamedTuple):
    """What `vbss.train_separator` gives.

    Attributes:
        separator: with the network as it was best on the validation corpus.
        training: its history and how it ended.
    """

    separator: TrainedSeparator
    training: Training


def train_separator(
    corpus: SimulatedMixtures | RecordedMixtures,
    validation: SimulatedMixtures | RecordedMixtures,
    microphone_positions: Float[np.ndarray, "microphones 3"],
    num_sources: int = 2,
    *,
    hidden_size: int = 192,
    num_layers: int = 3,
    cell: str = "minimal",
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int, float], Any] | None = None,
) -> NeuralTraining:
    """Train a network that separates one microphone on nothing but mixtures of several (`vbss.training.SpatialBound`).

    Args:
        corpus: of one array; stretches of about 2 s serve well.
        validation: other mixtures of it, best of other speakers.
        microphone_positions: of the array, metres.
        num_sources: in every mixture, or classes of which some may stay empty.
        hidden_size, num_layers, cell: of the network (`vbss.networks.Separator`).
        settings: by default 20 epochs of batches of 4 items at most; the seed is also that of the network's weights.
        folder, devices, progress: as of `vbss.train`, which goes on with what is in the folder.

    Raises:
        InputError: as `vbss.train` does, or if the corpora differ in their transform.
    """
    settings = settings_or(_SETTINGS, settings)
    for name, items in (("corpus", corpus), ("validation", validation)):
        if not isinstance(items, SimulatedMixtures | RecordedMixtures):
            raise InputError(f"{name} must be SimulatedMixtures or RecordedMixtures, got {type(items).__name__}")
    check_microphone_positions(microphone_positions)
    num_sources = whole_number("num_sources", num_sources, 1, MOST_SOURCES)
    if corpus.stft != validation.stft:
        raise InputError(f"validation must have the transform of corpus, {corpus.stft}, got {validation.stft}")
    stft = corpus.stft
    model = spatial_model(microphone_positions, stft, num_sources)
    separator = Separator(
        len(stft.frequencies),
        num_sources,
        hidden_size=hidden_size,
        num_layers=num_layers,
        cell=cell,
        key=jax.random.key(settings.seed),
    )
    separator = jax.tree.map(lambda weights: weights.astype(jnp.float32), separator)
    bound = SpatialBound(ArrayNetwork(separator))
    training = train(model, bound, corpus, validation, settings, folder=folder, devices=devices, progress=progress)
    network: Any = training.amortised.network
    return NeuralTraining(TrainedSeparator(network.separator, stft), training)
