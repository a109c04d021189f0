"""How many sources there are: the classes of a mixture model that explain more than a diffuse sound field would."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from vbss.densities.exponential import loaded_scatter
from vbss.errors import InputError, whole_number
from vbss.inference import EM, Solution, fit
from vbss.models import LDACGMM
from vbss.posteriors import Posterior

MAX_SOURCES = 6  # that are looked for, if nothing else is said
_SPARE_CLASSES = 2  # beyond the largest number: for the peaks of reflections among those that the classes start from
_LOADING = 1e-2  # white noise, relative: without any sound but one source's, its own reflections would stand out
_STEPS = 30
_FREQUENCIES = 128  # the count needs no more than about these of a long or wide recording
_BINS = 2**16
# A class is a source with probability 1 / (1 + (threshold / evidence)^slope): calibrated on rooms with reverberation
# times of 0.2 to 0.4 s and up to four sources at least 25 degrees apart, within 5 dB of the first.
_THRESHOLD = 8e-3
_SLOPE = 3.0


@dataclass(frozen=True)
class Counted:
    """How many sources `count_sources` found, and why.

    Attributes:
        num_sources: the most probable number; 1 where inference failed.
        probabilities: of 1, 2, ... sources, up to the largest number that was asked for; nan where inference failed.
        evidence: nats, of the classes from the strongest to the weakest: how much better a class explains its bins than
            diffuse sound does, for each of all observed bins and each microphone but one; nan where inference failed.
        directions: the most probable azimuth of each of these classes, as an index of the model's candidates.
        classes: their numbers, from 0, in the order of the directions that were given, or of the peaks.
        solution: of the mixture model's inference, with its status.
    """

    num_sources: int
    probabilities: Float[np.ndarray, " numbers"]
    evidence: Float[np.ndarray, " classes"]
    directions: Int[np.ndarray, " classes"]
    classes: Int[np.ndarray, " classes"]
    solution: Solution


def count_sources(
    model: LDACGMM,
    data: tuple[Complex[Array, "frequencies frames microphones"], Bool[Array, "frequencies frames"] | None],
    *,
    max_sources: int = MAX_SOURCES,
    start_directions: Float[Array, "classes directions"] | None = None,
) -> Counted:
    """Count the sources of a recording of a microphone array.

    The mixture is fitted with more classes than there can be sources, from the largest peaks of the directions'
    histogram. Classes compete for bins, and most of those without a source lose theirs. What they keep is
    reverberation, which is spread out in space: a class k counts by the evidence

        e_k = sum_ft z_ftk [log p(x_ft | H_k) - log p(x_ft | I)] / ((M - 1) N),

    that its spatial covariance H_k brings above that of diffuse sound, which is white in whitened bins, both at the
    best power of each bin, for N observed bins of M microphones. Each class is taken for a source with a probability
    that rises with its evidence, independently of the others, and the strongest one for certain; the number's posterior
    is that of their sum.

    A window of about 64 ms suits: in longer ones sounds overlap more, shorter ones hold less of a room's response.

    Args:
        model: of the array; how many classes it has does not matter.
        data: what it takes: bins whitened by a diffuse sound field (`vbss.audio.diffuse_whitening`), and optionally
            which were observed.
        max_sources: the largest number that can be found.
        start_directions: probabilities of the model's directions, from which the classes start in place of peaks: those
            of a network's classes, for one. No more sources can be found than there are classes.

    Raises:
        InputError: if the model is of another class, `max_sources` is not from 1 to the number of the model's
            directions, the start is of other directions, or the data do not fit the model.
    """
    if not isinstance(model, LDACGMM):
        raise InputError(f"model must be a vbss.models.LDACGMM, got {type(model).__name__}")
    num_directions = model.templates.shape[1]
    max_sources = whole_number("max_sources", max_sources, 1, num_directions)
    num_classes = min(max_sources + _SPARE_CLASSES, num_directions)
    if start_directions is not None:
        shape = getattr(start_directions, "shape", None)
        if (
            shape is None
            or len(shape) != 2
            or shape[0] == 0
            or shape[1] != num_directions
            or jnp.iscomplexobj(start_directions)
        ):
            raise InputError(
                f"start_directions must be real of shape (classes, {num_directions}), as the model has so many "
                f"directions, got {shape}."
            )
        num_classes = len(start_directions)
        max_sources = min(max_sources, num_classes)
    mixture, is_observed = data
    model.validate(mixture, is_observed)
    is_sound = jnp.any(mixture != 0, -1)
    if is_observed is not None:
        is_sound = is_sound & is_observed
    every = max(1, mixture.shape[0] // _FREQUENCIES)
    hop = max(1, -(-mixture.shape[1] * (mixture.shape[0] // every) // _BINS))
    thin = replace(
        model,
        templates=model.templates[::every],
        loading=jnp.maximum(model.loading[::every], _LOADING),
        num_sources=num_classes,
        has_noise=False,
    )
    bins = (mixture[::every, ::hop], is_sound[::every, ::hop])
    start = None if start_directions is None else thin.given_directions(bins[0], start_directions, bins[1])
    solution = fit(thin, bins, EM(), start=start, max_steps=_STEPS)
    assert isinstance(solution.posterior, Posterior)
    evidence, directions = (np.asarray(values) for values in _evidence(thin, solution.posterior, *bins))
    order = np.argsort(-evidence, kind="stable")
    evidence, directions = evidence[order], directions[order]
    probabilities = _number_probabilities(evidence, max_sources)
    num_sources = 1 if np.isnan(probabilities).any() else 1 + int(np.argmax(probabilities))
    return Counted(num_sources, probabilities, evidence, directions, order, solution)


@eqx.filter_jit
def _evidence(
    model: LDACGMM, posterior: Posterior, mixture: Complex[Array, "f t m"], is_sound: Bool[Array, "f t"]
) -> tuple[Float[Array, " k"], Int[Array, " k"]]:
    """The evidence of every class, and its most probable direction."""
    size = mixture.shape[-1]
    held = posterior.factors["spatial_covariance"].held  # type: ignore[attr-defined]
    masks, direction = posterior["source"].probs, posterior["direction"].probs  # type: ignore[union-attr]
    log_determinant = jnp.einsum("kd,fd->fk", direction, held["log_determinant"])
    # A bin's best power under H is x^H H^-1 x / M, which the posterior holds; under I it is x^H x / M.
    isotropic = loaded_scatter(mixture, model.loading[:, None])[..., :size].sum(-1) / size
    gain = size * (jnp.log(isotropic)[:, None] - jnp.log(posterior.points["power"])) - log_determinant[..., None]
    total = jnp.where(is_sound[..., None], masks * jnp.swapaxes(gain, 1, 2), 0).sum((0, 1))
    return total / ((size - 1) * is_sound.sum()).astype(total.dtype), jnp.argmax(direction, -1)


def _number_probabilities(evidence: Float[np.ndarray, " classes"], max_sources: int) -> Float[np.ndarray, " numbers"]:
    """The posterior of the number of sources: the strongest class is one, the others are independently of each other.

    What it has above `max_sources` is that of `max_sources`.
    """
    # A class that explains its bins worse than diffuse sound is none; nan stays.
    odds = (np.maximum(evidence, 0) / _THRESHOLD) ** _SLOPE
    probabilities = np.zeros(len(evidence))
    probabilities[0] = 1
    for probability in (odds / (1 + odds))[1:]:
        probabilities = (1 - probability) * probabilities + probability * np.roll(probabilities, 1)
    within = probabilities[:max_sources].copy()
    within[-1] += probabilities[max_sources:].sum()
    return within
