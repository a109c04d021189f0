"""The bound from which a separator learns by itself: microphones say where sources are, and masks are left to learn."""

from itertools import permutations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from vbss.audio import STFT, azimuth_grid, steering_vectors
from vbss.errors import InputError, positive
from vbss.inference.amortised import Amortised
from vbss.models import LDACGMM
from vbss.models.bins import einsum
from vbss.models.cgmm_start import bin_fit, peak_directions
from vbss.networks import ArrayNetwork

_HISTOGRAM_FREQUENCIES, _HISTOGRAM_BINS = 32, 2000  # one of eighty pairs of 2 s is missed for that
MOST_SOURCES = 6  # all of whose permutations are gone through


def spatial_model(
    microphone_positions: Float[np.ndarray, "microphones 3"],
    stft: STFT,
    num_sources: int,
    num_directions: int = 72,
    *,
    diffuseness: float = 0.03,
) -> LDACGMM:
    """The model of an array's mixtures for `SpatialBound`.

    Args:
        microphone_positions: metres.
        stft: of the mixtures.
        num_sources: K.
        num_directions: candidate azimuths all around.
        diffuseness: of the templates (`vbss.models.LDACGMM.init`); as nothing else does, they stand for echoes too.
    """
    positions, azimuths = (jnp.asarray(a, jnp.float32) for a in (microphone_positions, azimuth_grid(num_directions)))
    steering = steering_vectors(positions, azimuths, stft.frequencies).astype(jnp.complex64)
    return LDACGMM.init(steering, num_sources, diffuseness=diffuseness)


class SpatialBound(Amortised):
    """A tempered bound of `vbss.models.LDACGMM` whose only unknown is q(z): raised by masks that tell directions apart.

    Where q(w) follows from masks, as in (15), classes that are still alike all take the direction of the loudest
    source. Then nothing is gained by telling bins apart, and networks stay for very many steps where they begin. Here
    the rest of q and of the parameters is what serves bounds just as well and does not depend on masks:

    - q(w): the K largest peaks of the directions' histogram, over all ways to give them to the classes;
    - H: the templates; lambda: its optimum for each bin and direction; pi: even, as its update would let one class have
      all bins before the network knows any better.

    And each bin's likelihood is tempered, by the exponent times its magnitude over the mean magnitude: windows that
    overlap tell everything several times, likelihoods know nothing of echoes, and a mask is heard where sound is loud.
    With an exponent of 1 for all bins, this is the bound of the model; with others it is none, but what is raised in
    the bound's place.

    Attributes:
        exponent: of the mean bin.
        by_magnitude: whether exponents follow the magnitude.
    """

    exponent: float = eqx.field(static=True, default=0.2)
    by_magnitude: bool = eqx.field(static=True, default=True)

    def __init__(self, network: ArrayNetwork, *, exponent: float = 0.2, by_magnitude: bool = True):
        if not isinstance(network, ArrayNetwork):
            raise InputError(f"network must be a vbss.networks.ArrayNetwork, got {type(network).__name__}")
        super().__init__(network)
        self.exponent, self.by_magnitude = positive("exponent", exponent), by_magnitude

    def bound(self, model: LDACGMM, mixture: Complex[Array, "f t m"], *rest: Any) -> Float[Array, ""]:
        """The tempered bound of these data at their q, without the prior of H and constants of the density.

        Raises:
            InputError: for a model with a class of noise, of more than 6 sources, or of another number than the
                network's classes, or data with unobserved bins.
        """
        num_sources = model.num_sources
        if model.has_noise or num_sources > MOST_SOURCES or any(part is not None for part in rest):
            raise InputError(
                f"model and data must be those of at most {MOST_SOURCES} sources without a class of noise, with all "
                "bins observed"
            )
        network: Any = self.network
        if network.separator.num_classes != num_sources:
            raise InputError(
                f"model must be of the network's {network.separator.num_classes} classes, got {num_sources} sources"
            )
        log_masks = jax.nn.log_softmax(network.separator.logits(mixture), -1)
        masks = jnp.exp(log_masks)
        fit = bin_fit(model, mixture, jax.lax.stop_gradient(_peaks(model, mixture)))
        magnitude = jnp.sqrt((mixture.real**2 + mixture.imag**2).sum(-1))
        mean = magnitude.mean()
        exponents = jnp.full_like(magnitude, self.exponent)
        if self.by_magnitude:
            exponents = exponents * magnitude / jnp.where(mean > 0, mean, 1)
        fit = jnp.where(magnitude[..., None] > 0, exponents[..., None] * fit, 0)
        gains = einsum("ftk,ftj->kj", masks, fit)
        ways = jnp.array(list(permutations(range(num_sources))))
        of_ways = gains[jnp.arange(num_sources)[None], ways].sum(1)
        entropy = -(masks * (log_masks + jnp.log(jnp.asarray(num_sources, masks.dtype)))).sum()
        return entropy + jax.nn.logsumexp(of_ways) - jnp.log(jnp.asarray(len(ways), of_ways.dtype))


def _peaks(model: LDACGMM, mixture: Complex[Array, "f t m"]) -> Float[Array, "j d"]:
    """The largest peaks of the directions' histogram of some of the bins, one-hot."""
    every = max(1, mixture.shape[0] // _HISTOGRAM_FREQUENCIES)
    hop = max(1, mixture.shape[1] * (mixture.shape[0] // every) // _HISTOGRAM_BINS)
    thin = model.replace(templates=model.templates[::every], loading=model.loading[::every])
    return peak_directions(thin, mixture[::every, ::hop])
