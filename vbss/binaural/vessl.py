"""VESSL on a recording: from cues to positions and masks, with the paper's settings or the best known ones."""

from dataclasses import dataclass
from math import log2
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vbss.binaural.calibration import Calibration
from vbss.errors import InputError, positive, whole_number
from vbss.inference import EM, Solution, fit
from vbss.inference.loop import LONGEST_CHUNK
from vbss.inference.restarts import fit_best
from vbss.inference.stages import fit_stages
from vbss.models import PPAM, VESSL, vessl_closed_forms
from vbss.models.vessl_start import best_centers
from vbss.posteriors import Posterior

_LEVEL_VARIANCE, _PHASE_VARIANCE = 1.0, 0.01  # dB^2 and of cosine and sine: the noise that single frames at least have
_STAGE_TOLERANCE = 1e-5
_RANDOM_STARTS = 4  # for each source beyond the first
_ABSENT = -1e4  # log weight of a piece that is only there for the shape


@dataclass(frozen=True)
class VESSLSettings:
    """How VESSL is inferred.

    Attributes:
        num_candidates: starts from the sets of pieces that explain the most bins; 0 for none.
        num_random: starts from random positions; None for 4 for each source beyond the first, but none of two sources
            whose phases are known: there the search over all pairs of pieces nearly always finds them.
        progressive: whether random starts tie the bins of a frame first and divide their blocks in two again and again.
        multi_scale: whether random starts go through all maps of the calibration, from the coarsest to the finest.
        outlier_probability: of bins of no source; None for no such class.
        weight_count: bins of each source seen before at each frequency.
        trial_steps: of each start, before the best goes on; up to 50.
        max_steps: of the best.
        stage_steps: of each scale and level; up to 50.
        level_stride: each level has this power of two times the blocks of the last.
    """

    num_candidates: int = 6
    num_random: int | None = None
    progressive: bool = True
    multi_scale: bool = False
    outlier_probability: float | None = 0.3
    weight_count: float = 2.0
    trial_steps: int = 4
    max_steps: int = 20
    stage_steps: int = 5
    level_stride: int = 3

    def __post_init__(self):
        for name in ("num_candidates", "num_random"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 0)
        for name in ("trial_steps", "stage_steps"):
            whole_number(name, getattr(self, name), 1, LONGEST_CHUNK)
        for name in ("max_steps", "level_stride"):
            whole_number(name, getattr(self, name), 1)
        if self.num_candidates == 0 and self.num_random == 0:
            raise InputError("num_candidates and num_random must not both be 0: there must be a start.")
        if self.outlier_probability is not None and not 0 < self.outlier_probability < 1:
            raise InputError(f"outlier_probability must be between 0 and 1, got {self.outlier_probability}.")
        if self.weight_count != 0:
            positive("weight_count", self.weight_count)


PAPER = VESSLSettings(
    num_candidates=0,
    num_random=1,
    multi_scale=True,
    outlier_probability=None,
    weight_count=0.0,
    stage_steps=3,
    level_stride=1,
)
"""Deleforge, Forbes and Horaud (2013): one random start, from coarse to fine maps, with progressive masking."""

BEST = VESSLSettings()
"""Search over sets of pieces, random starts too where that may fail, and a class of outliers; the bound chooses."""

REVERBERANT = VESSLSettings(outlier_probability=None)
"""`BEST` for rooms, where most bins would be outliers."""


def vessl_model(
    calibration: Calibration,
    cues: Float[Array, "c f t"],
    is_observed: Bool[Array, "f t"],
    num_sources: int,
    settings: VESSLSettings = BEST,
    ppam: PPAM | None = None,
) -> VESSL:
    """The model of a recording: outliers spread as far as directions and a quarter of the recording's own cues do.

    Raises:
        InputError: for cues of another shape, or nothing observed.
    """
    ppam = calibration.ppam if ppam is None else ppam
    is_cue = calibration.cues.is_cue
    variances = jnp.array([_LEVEL_VARIANCE] + [_PHASE_VARIANCE] * (len(is_cue) - 1), cues.dtype)
    model = VESSL.init(
        ppam,
        is_cue,
        num_sources,
        noise_variance=variances,
        weight_count=settings.weight_count,
        outlier_probability=settings.outlier_probability,
    )
    model.validate(cues, is_observed)
    if settings.outlier_probability is None:
        return model
    return model.replace(outlier_precision=_outlier_precision(model, cues, is_observed))  # type: ignore[return-value]


def infer_vessl(
    calibration: Calibration,
    cues: Float[Array, "c f t"],
    is_observed: Bool[Array, "f t"],
    num_sources: int,
    settings: VESSLSettings = BEST,
    *,
    key: Array | None = None,
) -> Solution:
    """Infer positions and labels of a recording's sources.

    Args:
        cues: of the calibration's settings (`InterauralCues.cues`).
        is_observed: the bins that count (`vbss.audio.observed_bins`).
        num_sources: M.

    Returns:
        A solution of `vbss.models.VESSL`, whose `positions` and `masks` read its posterior.

    Raises:
        InputError: for cues of another shape, nothing observed, or more sources than the map has pieces.
    """
    key = jax.random.key(0) if key is None else key
    num_pieces = len(calibration.ppam.log_weights)
    if whole_number("num_sources", num_sources, 1) > num_pieces:
        raise InputError(
            f"num_sources ({num_sources}) must not exceed the {num_pieces} pieces of the calibration's map; "
            "calibrate with more directions or pieces."
        )
    model = vessl_model(calibration, cues, is_observed, num_sources, settings)
    data = (cues, is_observed)
    key_search, key_random, key_fit = jax.random.split(key, 3)
    starts: list[Any] = []
    if settings.num_candidates:
        found = best_centers(model, cues, is_observed, key=key_search, num_candidates=settings.num_candidates)
        starts += [model.given_pieces(cues, is_observed, pieces) for pieces in found]
    num_random = settings.num_random
    if num_random is None:
        is_searched = num_sources == 2 and len(cues) > 1
        num_random = 0 if is_searched else _RANDOM_STARTS * (num_sources - 1)
        num_random = num_random if settings.num_candidates else max(num_random, 1)
    for key_one in jax.random.split(key_random, num_random) if num_random else ():
        starts.append(_random_start(calibration, model, data, settings, key_one))
    algorithm = EM(tolerance=1e-7)
    if len(starts) == 1:
        return fit(model, data, algorithm, key=key_fit, start=starts[0], max_steps=settings.max_steps)
    return fit_best(
        model,
        data,
        algorithm,
        starts=starts,
        trial_steps=settings.trial_steps,
        max_steps=settings.max_steps,
        key=key_fit,
    )


def _random_start(
    calibration: Calibration, model: VESSL, data: tuple, settings: VESSLSettings, key: Array
) -> dict[str, Array] | Posterior:
    """Random positions, and what scales and levels make of them."""
    maps = calibration.maps if settings.multi_scale else calibration.maps[-1:]
    num_frequencies = data[1].shape[0]
    levels = (
        labels_of_levels(num_frequencies, settings.level_stride)
        if settings.progressive
        else [np.arange(num_frequencies)]
    )
    pieces = jax.random.choice(key, len(calibration.ppam.log_weights), (model.num_sources,), replace=False)
    # Where the sources are is drawn; the labels that follow are tied as those of the first stage.
    start = model.replace(labels=jnp.asarray(levels[0])).given_pieces(*data, pieces)  # type: ignore[attr-defined]
    if len(maps) == 1 and len(levels) == 1:
        return start
    scales = [_at_scale(calibration, ppam, model, data, settings) for ppam in maps]
    stages = [scale.replace(labels=jnp.asarray(labels)) for scale in scales for labels in levels]
    algorithm = EM(tolerance=_STAGE_TOLERANCE, frozen=("log_mixing_weights",))
    solution, _ = fit_stages(
        stages, data, algorithm, hand_over=_hand_over, start=start, steps=settings.stage_steps, key=key
    )
    assert isinstance(solution.posterior, Posterior)
    return solution.posterior


def _at_scale(calibration: Calibration, ppam: PPAM, model: VESSL, data: tuple, settings: VESSLSettings) -> VESSL:
    """The model with another map, which has pieces without weight up to the number of the finest."""
    missing = len(calibration.ppam.log_weights) - len(ppam.log_weights)
    size = ppam.centers.shape[1]
    eye = jnp.broadcast_to(jnp.eye(size, dtype=ppam.centers.dtype), (missing, size, size))
    padded = ppam.replace(
        log_weights=jnp.pad(ppam.log_weights, (0, missing), constant_values=_ABSENT),
        centers=jnp.pad(ppam.centers, ((0, missing), (0, 0))),
        position_precision=jnp.concatenate([ppam.position_precision, eye]),
        coefficients=jnp.pad(ppam.coefficients, ((0, missing), (0, 0), (0, 0))),
    )
    assert isinstance(padded, PPAM)
    return vessl_model(calibration, data[0], data[1], model.num_sources, settings, padded)


def _hand_over(model: Any, before: Any, posterior: Posterior, data: tuple) -> Posterior:
    """The masks are handed on: positions by this stage's map, and labels divided, or anew where they are tied again."""

    def updated(model: Any, posterior: Posterior, block: str) -> Posterior:
        natural = model.closed_forms()[block](model, posterior, data, {})
        return posterior.with_factor(block, posterior.factors[block].with_natural(natural))

    posterior = updated(model.replace(labels=before.labels), posterior, "position")
    divided = model.released(posterior, before.labels, data[1])
    tied = updated(model, posterior, "source")
    is_coarser = _num_labels(model.labels) < _num_labels(before.labels)
    return jax.tree.map(lambda a, b: jnp.where(is_coarser, a, b), tied, divided)


def _num_labels(labels: Int[Array, " f"]) -> Int[Array, ""]:
    return (labels[1:] != labels[:-1]).sum()


def _outlier_precision(model: VESSL, cues: Array, is_observed: Array) -> Float[Array, "c f"]:
    """Of directions drawn from the map, and a quarter of the recording's second moment."""
    values = model.pieces.maps[..., -1]
    weights = jax.nn.softmax(model.pieces.log_weights)
    means = (weights[None] * values).sum(-1, keepdims=True)
    of_directions = (weights[None] * (values - means) ** 2).sum(-1)
    squares = (vessl_closed_forms.centred(model, cues, is_observed) ** 2).sum(-1)
    moment = squares / jnp.maximum(is_observed.sum(-1), 1)[None].astype(cues.dtype)
    return 1 / jnp.maximum(vessl_closed_forms.spread(model, of_directions) + moment / 4, model.noise_variance)


def labels_of_levels(num_frequencies: int, stride: int = 1) -> list[Int[np.ndarray, " f"]]:
    """The places of the labels at each level of progressive masking: one block, two, four, ... and untied at last."""
    levels = [
        np.arange(num_frequencies) * 2**level // num_frequencies * num_frequencies // 2**level
        for level in range(0, int(np.ceil(log2(max(num_frequencies, 1)))), stride)
    ]
    return [*levels, np.arange(num_frequencies)]
