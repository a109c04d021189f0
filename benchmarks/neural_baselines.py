"""Separators trained by what a training by mixtures alone does without: the sources themselves.

Both are the `vbss.networks.Separator` of the other rows, of which only the loss and, for clustering, the size of the
output differ; `vbss.train` takes them as it takes a bound.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy.cluster.vq import kmeans2

from vbss import Amortised
from vbss.models import LDACGMM
from vbss.networks import Separator
from vbss.training import SimulatedMixtures

EMBEDDING_SIZE = 20  # as in Deep Bayesian cGMM
_HEARD = 1e-4  # of a bin's power, relative to the loudest: others count in no loss of clustering and no centre


class Supervised(LDACGMM):
    """Not a model of what its networks learn from, but the place where `vbss.train` asks about data."""

    def validate(self, mixture: Array, references: Array | None = None) -> None:
        super().validate(mixture)


class LabelledMixtures(SimulatedMixtures):
    """The same scenes with the sources at the first microphone, complex64 (F, T, K), beside the mixture."""

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, ...]:
        number, part = divmod(index, self.parts)
        scene = self.scene(number)
        found = self.spectrogram(scene), self.transformed(scene.images[:, 0])
        length = found[0].shape[1] // self.parts
        return tuple(values[:, part * length : (part + 1) * length] for values in found)


class PermutationInvariant(Amortised):
    """Masked magnitudes against the sources', phase-sensitive, under the better of two permutations.

    Source: M. Kolbaek et al., "Multitalker speech separation with utterance-level permutation invariant training of
    deep recurrent neural networks" (2017).
    """

    def bound(self, model, mixture: Complex[Array, "f t m"], references: Complex[Array, "f t k"]) -> Float[Array, ""]:
        magnitude, phase = jnp.abs(mixture[..., 0]), jnp.angle(mixture[..., :1])
        wanted = jnp.abs(references) * jnp.maximum(jnp.cos(jnp.angle(references) - phase), 0)
        found = self.network(mixture)["source"] * magnitude[..., None]
        errors = ((found[..., :, None] - wanted[..., None, :]) ** 2).sum((0, 1)) / (magnitude**2).mean()
        return -jnp.minimum(jnp.trace(errors), jnp.trace(errors[::-1]))


class DeepClustering(Amortised):
    """Embeddings of bins that are alike where the same source is louder.

    Source: J. Hershey et al., "Deep clustering: discriminative embeddings for segmentation and separation" (2016).
    """

    def bound(self, model, mixture: Complex[Array, "f t m"], references: Complex[Array, "f t k"]) -> Float[Array, ""]:
        embeddings = embedded(self.network, mixture)
        power = jnp.abs(references) ** 2
        labels = (power == power.max(-1, keepdims=True)).astype(embeddings.dtype)
        heard = _heard(mixture).astype(embeddings.dtype)
        v, y = ((values * heard[..., None]).reshape(-1, values.shape[-1]) for values in (embeddings, labels))
        loss = sum(sign * ((a.T @ b) ** 2).sum() for sign, a, b in ((1, v, v), (-2, v, y), (1, y, y)))
        return -loss / jnp.maximum(heard.sum(), 1)


def embedded(network: Separator, mixture: Complex[Array, "f t m"]) -> Float[Array, "f t e"]:
    """Of length 1."""
    values = jnp.tanh(network.logits(mixture))
    return values / jnp.sqrt((values**2).sum(-1, keepdims=True) + 1e-8)


def _heard(mixture: Complex[Array, "f t m"]) -> Array:
    power = jnp.abs(mixture[..., 0]) ** 2
    return power > _HEARD * power.max()


def clustered_masks(
    network: Separator, mixture: Complex[Array, "f t m"], num_sources: int
) -> Float[np.ndarray, "f t k"]:
    """The nearest of the centres that k-means finds among bins that are heard."""
    embeddings, heard = (np.asarray(x) for x in jax.jit(lambda x: (embedded(network, x), _heard(x)))(mixture))
    centres, _ = kmeans2(embeddings[heard].astype(float), num_sources, minit="++", seed=0)
    return np.eye(num_sources, dtype=np.float32)[np.argmax(embeddings @ centres.T - 0.5 * (centres**2).sum(-1), -1)]
