"""From a recording's bins to its sources, as a value: a mixture model's masks, and what makes sounds of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact

from vbss.audio.diffuse import whitened
from vbss.audio.filters import apply_masks, multichannel_wiener
from vbss.errors import InputError, positive, whole_number
from vbss.inference import EM, Solution, Status, fit
from vbss.models import CACGMM, LDACGMM, LocalGaussianNMF
from vbss.posteriors import Posterior

Progress = Callable[[int, int, float], Any]
_FOLLOWING_STEPS = 20  # of the activations, where sound was lost: by themselves they converge quickly


class Analysis(NamedTuple):
    """What an output starts from.

    Attributes:
        mixture: the spectrogram.
        whitening: of each frequency (`vbss.audio.diffuse_whitening`).
        microphones: whose sound is wanted, counted from 0; the reference comes first.
        is_whole: the frames in which all channels hold what their microphones heard; None if all do.
    """

    mixture: Complex[Array, "frames frequencies microphones"]
    whitening: Inexact[Array, "frequencies microphones microphones"]
    microphones: tuple[int, ...]
    is_whole: Bool[Array, " frames"] | None = None


class Sounds(NamedTuple):
    """What an output makes of the analysis.

    Attributes:
        spectrograms: of each source as the microphones that were asked for hear it.
        solution: of the output's own inference, if it has one.
        expected_sdr: dB at the reference, if the output has a posterior of the sounds (`Separation.expected_sdr`).
    """

    spectrograms: Complex[Array, "sources microphones frames frequencies"]
    solution: Solution | None = None
    expected_sdr: Float[Array, " sources"] | None = None


class Output(ABC):
    """How masks become sounds."""

    @abstractmethod
    def __call__(
        self,
        analysis: Analysis,
        masks: Float[Array, "frames frequencies sources"],
        *,
        key: Array,
        progress: Progress | None = None,
    ) -> Sounds:
        """The sources of an analysed recording, given the probability that a source owns a bin."""


@dataclass(frozen=True)
class Masking(Output):
    """The masks times the mixture (`vbss.audio.apply_masks`)."""

    def __call__(self, analysis, masks, *, key, progress=None):
        return Sounds(_at_each(apply_masks, analysis, masks))


@dataclass(frozen=True)
class Wiener(Output):
    """One multichannel Wiener filter for the whole recording (`vbss.audio.multichannel_wiener`).

    What the masks leave of the bins is noise, and filtered out.
    """

    def __call__(self, analysis, masks, *, key, progress=None):
        noise = jnp.maximum(1 - masks.sum(-1, keepdims=True), 0)
        return Sounds(_at_each(multichannel_wiener, analysis, jnp.concatenate([masks, noise], -1))[:-1])


@dataclass(frozen=True)
class SumModel(Output):
    """A model in which sources overlap, started from the masks; its filter differs from bin to bin.

    Attributes:
        num_components: of each source's spectra.
        max_steps: iterations at most.
        has_noise: whether there is a class of noise beside the sources; it is left out of the sounds.
        loading: white noise that every source is taken to carry.
        algorithm: of the inference.
        model: `vbss.models.LocalGaussianNMF` or a subclass (`vbss.models.FastMNMF`).
    """

    num_components: int = 16
    max_steps: int = 60
    has_noise: bool = True
    loading: float = 1e-4
    algorithm: EM = EM()
    model: type[LocalGaussianNMF] = LocalGaussianNMF

    def __post_init__(self):
        whole_number("num_components", self.num_components, 1)
        whole_number("max_steps", self.max_steps, 1)
        positive("loading", self.loading)
        if not isinstance(self.model, type) or not issubclass(self.model, LocalGaussianNMF):
            raise InputError(f"model must be a class, that of a vbss.models.LocalGaussianNMF, got {self.model!r}")
        if not isinstance(self.algorithm, EM):
            raise InputError(f"algorithm must be a vbss.EM, got {self.algorithm!r}")

    def __call__(self, analysis, masks, *, key, progress=None):
        model = self.model.init(masks.shape[-1], self.num_components, has_noise=self.has_noise, loading=self.loading)
        key_start, key_fit = jax.random.split(key)
        white, is_observed, start = _started(model, analysis, masks, key_start)
        data = white if is_observed is None else (white, is_observed)
        solution = fit(
            model, data, self.algorithm, key=key_fit, start=start, max_steps=self.max_steps, progress=progress
        )
        posterior = solution.posterior
        assert isinstance(posterior, Posterior)
        if is_observed is not None and solution.status not in (Status.nonfinite, Status.interrupted):
            # What was lost in part says nothing of how sources sound and where they are, but is still to be separated.
            learnt = [name for name in posterior.points if name != "activations"]
            follow = EM(updates=self.algorithm.updates, frozen=learnt, probes=False)
            posterior = fit(model, white, follow, key=key_fit, start=posterior, max_steps=_FOLLOWING_STEPS).posterior
            assert isinstance(posterior, Posterior)
        # The whitening undone, of what each microphone hears.
        rows = np.eye(analysis.mixture.shape[-1])[list(analysis.microphones)]
        columns = np.swapaxes(np.asarray(analysis.whitening, np.complex128), 1, 2)
        channels = jnp.asarray(np.moveaxis(np.linalg.solve(columns, rows.T[None]), -1, 0), white.dtype)
        images = _images(model, posterior, white, channels)
        variances = model.image_variances(posterior, white, channels[0])
        spectrograms = jnp.swapaxes(images, 2, 3) * _level(analysis.mixture).astype(white.dtype)
        return Sounds(spectrograms, solution, _expected_sdr(images[:, 0], variances))


@dataclass(frozen=True)
class Pipeline:
    """Start, mixture model and output of a separation.

    Attributes:
        mixture_model: `vbss.models.LDACGMM` or a subclass (`vbss.models.InverseWishartMixture`), or, for an array of
            which nothing is known, `vbss.models.CACGMM` or a subclass.
        output: what makes sounds of the masks.
        start_window: s; the directions to start from are found in a window of that length where the recording's own is
            longer (not by `vbss.models.CACGMM`); None starts as the model does by itself.
        has_noise: whether the mixture model has a class of noise beside the sources (`SumModel.has_noise` is another).
            None gives a model of a known array one where the recording is hardly above its noise floor
            (`vbss.audio.noise_floor`; in a long one, each block by itself), and `vbss.models.CACGMM` none.
    """

    mixture_model: Any = LDACGMM
    output: Output = SumModel()
    start_window: float | None = 0.064
    has_noise: bool | None = None

    def __post_init__(self):
        if not isinstance(self.mixture_model, type) or not issubclass(self.mixture_model, LDACGMM | CACGMM):
            raise InputError(
                f"mixture_model must be a class, that of a vbss.models.LDACGMM or CACGMM, got {self.mixture_model!r}"
            )
        if not isinstance(self.output, Output):
            raise InputError(f"output must be a vbss.SumModel, vbss.Wiener or vbss.Masking, got {self.output!r}")
        if self.start_window is not None:
            positive("start_window", self.start_window)
        if self.has_noise not in (None, False, True):
            raise InputError(f"has_noise must be True, False or None, got {self.has_noise!r}")

    @property
    def is_blind(self) -> bool:
        """Whether nothing of the array is used."""
        return issubclass(self.mixture_model, CACGMM)


@eqx.filter_jit
def _at_each(
    method: Callable, analysis: Analysis, masks: Float[Array, "frames frequencies sources"]
) -> Complex[Array, "sources microphones frames frequencies"]:
    """What a method makes of the masks, at each microphone that is wanted."""
    wanted = [method(analysis.mixture, masks, microphone) for microphone in analysis.microphones]
    return jnp.stack(wanted, 1)


@eqx.filter_jit
def _images(
    model: LocalGaussianNMF,
    posterior: Posterior,
    white: Complex[Array, "frequencies frames microphones"],
    channels: Complex[Array, "wanted frequencies microphones"],
) -> Complex[Array, "sources wanted frequencies frames"]:
    """The sources at each combination of microphones that is wanted; what does not depend on it is computed once."""
    return jax.vmap(lambda channel: model.images(posterior, white, channel), out_axes=1)(channels)


@eqx.filter_jit
def _level(mixture: Complex[Array, "frames frequencies microphones"]) -> Float[Array, ""]:
    """A level that brings powers within the range of the number format."""
    peak = jnp.max(jnp.abs(mixture))
    return jnp.where(peak > 0, peak, 1)


@eqx.filter_jit
def _expected_sdr(
    means: Complex[Array, "sources frequencies frames"], variances: Float[Array, "sources frequencies frames"]
) -> Float[Array, " sources"]:
    """The ratio of a source's expected energy to that of its error, dB, from 0 to 120."""
    error = variances.sum((1, 2))
    energy = (means.real**2 + means.imag**2).sum((1, 2)) + error
    ratio = jnp.where(energy > 0, energy / jnp.maximum(error, 1e-12 * energy), 1)
    return 10 * jnp.log10(ratio)


@eqx.filter_jit
def _started(
    model: LocalGaussianNMF,
    analysis: Analysis,
    masks: Float[Array, "frames frequencies sources"],
    key: Array,
) -> tuple[
    Complex[Array, "frequencies frames microphones"], Bool[Array, "frequencies frames"] | None, dict[str, Array]
]:
    """The mixture white and of one level, which bins of it are whole, and where the model starts on it."""
    mixture = analysis.mixture
    level = _level(mixture)
    scaled = jax.lax.complex(mixture.real / level, mixture.imag / level)
    white = whitened(analysis.whitening, jnp.swapaxes(scaled, 0, 1))
    is_observed = None
    if analysis.is_whole is not None:
        is_observed = jnp.broadcast_to(analysis.is_whole[None], white.shape[:2])
    return white, is_observed, model.given_masks(white, jnp.swapaxes(masks, 0, 1), is_observed, key=key)
