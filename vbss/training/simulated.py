"""Corpora of simulated mixtures: scenes drawn one by one from a folder of speech, as they are asked for."""

import hashlib
from functools import cached_property
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.audio import STFT, read_microphone_positions
from vbss.errors import InputError, whole_number
from vbss.models import LDACGMM
from vbss.scenes import Condition, Scene, SpeechCorpus, random_scene
from vbss.training.spatial import spatial_model


class SimulatedMixtures:
    """A corpus of `vbss.train`: items are the spectrograms of the scenes of a series, complex64 (F, T, M), and no more.

    What a scene's sources are is not told: the spectrogram is that of their mixture. Series of the same speech,
    condition and seed have the same scenes, so what is to be held out must differ in speech or seed.

    Attributes:
        corpus: the speech, such as `SpeechCorpus.read(folder, split="train")`: speakers of other parts are not heard.
        condition: what the scenes have in common; the array must be the same for all.
        count: how many scenes there are.
        parts: into which each scene is cut, one after the other in time, each of which is an item.
        stft: by default of windows of 64 ms every 16 ms.
        seed: of the series.
        cache: folder where scenes are stored that were drawn once (`vbss.scenes.random_scene`).
    """

    def __init__(
        self,
        corpus: SpeechCorpus,
        condition: Condition,
        count: int,
        *,
        parts: int = 1,
        stft: STFT | None = None,
        seed: int = 0,
        cache: str | Path | None = None,
    ):
        if condition.responses is not None:
            raise InputError("condition must be of simulated rooms: measured responses are few, and of their own array")
        self.corpus, self.condition, self.cache = corpus, condition, cache
        self.count, self.seed = whole_number("count", count, 1), whole_number("seed", seed, 0)
        self.parts = whole_number("parts", parts, 1)
        self.stft = STFT.init(condition.sample_rate) if stft is None else stft
        if self.stft.sample_rate != condition.sample_rate:
            raise InputError(
                f"stft must be of the condition's sample rate, {condition.sample_rate} Hz, got one of "
                f"{self.stft.sample_rate} Hz"
            )

    def __len__(self) -> int:
        return self.count * self.parts

    def __getitem__(self, index: int, /) -> tuple[Complex[np.ndarray, "f t m"]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, part = divmod(index, self.parts)
        spectrogram = self.spectrogram(self.scene(number))
        length = spectrogram.shape[1] // self.parts
        return (spectrogram[:, part * length : (part + 1) * length],)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the speech and of all that is drawn from it (`vbss.train`)."""
        drawn = (self.corpus.fingerprint, self.condition, self.count, self.parts, self.seed, self.stft)
        return hashlib.sha256(repr(drawn).encode()).hexdigest()

    def scene(self, index: int) -> Scene:
        """All of a scene, for those who compare with the truth."""
        return random_scene(self.corpus, self.condition, seed=self.seed, index=index, cache=self.cache)

    def spectrogram(self, scene: Scene) -> Complex[np.ndarray, "f t m"]:
        """Of a scene's mixture."""
        return self.transformed(scene.mixture)

    def transformed(self, samples: Float[np.ndarray, "m samples"]) -> Complex[np.ndarray, "f t m"]:
        """The spectrogram of any sounds of the scenes' rate, complex64."""
        return np.asarray(spectrogram(self.stft, jnp.asarray(samples, jnp.float32)))

    def name_of(self, index: int) -> str:
        """What warnings call an item."""
        number, part = divmod(index, self.parts)
        return f"scene {number} of the series {self.seed}" + (f", part {part + 1}" if self.parts > 1 else "")

    def model(self, num_sources: int | None = None, num_directions: int = 72, *, diffuseness: float = 0.03) -> LDACGMM:
        """The model of these mixtures, of the condition's array (`spatial_model`).

        Args:
            num_sources: by default that of the condition; more are classes of which some stay empty.
            num_directions, diffuseness: see there.
        """
        num_sources = self.condition.num_sources if num_sources is None else num_sources
        positions = read_microphone_positions(self.condition.microphones)
        return spatial_model(positions, self.stft, num_sources, num_directions, diffuseness=diffuseness)


@eqx.filter_jit
def spectrogram(stft: STFT, samples: Float[Array, "m samples"]) -> Complex[Array, "f t m"]:
    return jnp.moveaxis(stft.forward(samples), (0, 1, 2), (2, 1, 0))
