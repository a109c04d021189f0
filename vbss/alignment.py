"""Permutation alignment: models that treat every frequency by itself number its classes at random; one order for all.

Source: Sawada, Araki and Makino, "Underdetermined convolutive blind source separation via frequency bin-wise clustering
and permutation alignment" (2011): the masks of one source rise and fall together at all frequencies.
"""

import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from scipy.optimize import linear_sum_assignment

from vbss.errors import InputError

_SEEDS = 4  # frequencies whose own masks are tried as the first centroids
_TRIAL_SWEEPS = 3  # enough to tell a good seed from a bad one
_SWEEPS = 20
_REFINEMENTS = 3
_NEIGHBOURS = 3  # frequencies on either side


def align_permutations(masks: Shaped[Array | np.ndarray, "..."]) -> Int[np.ndarray, "frequencies classes"]:
    """The order of the classes at every frequency in which each class is one source.

    Masks over time, centred and of norm one, are assigned to as many centroids, which are the means of what is assigned
    to them; then each frequency in turn to the mean of its neighbours, its octaves and all others, which follows a
    source whose activity is not the same at all frequencies. Classes keep the number that most frequencies give them.

    Args:
        masks: the probability of each class, real (frequencies, frames, classes); frequencies are evenly spaced from 0.

    Returns:
        At [f, k] the class at frequency f that belongs to source k, so that
        `numpy.take_along_axis(masks, permutations[:, None], 2)` are the aligned masks.

    Raises:
        InputError: if the masks do not have three axes, are empty, not real floating numbers or not finite.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.size == 0:
        raise InputError(f"masks must have shape (frequencies, frames, classes), none of them 0, got {masks.shape}")
    if not np.issubdtype(masks.dtype, np.floating) or not np.isfinite(masks).all():
        raise InputError(f"masks must be finite real floating numbers, got {masks.dtype}")
    envelopes = np.ascontiguousarray(np.swapaxes(masks, 1, 2))
    envelopes = _normalized(envelopes - envelopes.mean(-1, keepdims=True))
    permutations = _refined(envelopes, _clustered(envelopes))
    num_classes = permutations.shape[1]
    kept = (permutations[:, :, None] == np.arange(num_classes)).sum(0)
    return permutations[:, linear_sum_assignment(kept.T, maximize=True)[1]]


def _normalized(envelopes: Float[np.ndarray, "*batch t"]) -> Float[np.ndarray, "*batch t"]:
    """Of norm one; a constant mask, which says nothing, is zero."""
    norm = np.linalg.norm(envelopes, axis=-1, keepdims=True)
    is_constant = norm < np.finfo(norm.dtype).eps ** 0.5
    return np.where(is_constant, 0, envelopes / np.where(is_constant, 1, norm))


def _clustered(envelopes: Float[np.ndarray, "f k t"]) -> Int[np.ndarray, "f k"]:
    """Assignment to centroids common to all frequencies, from the best of a few starts."""
    num_frequencies = len(envelopes)
    seeds = (2 * np.arange(_SEEDS) + 1) * num_frequencies // (2 * _SEEDS)
    trials = [_swept(envelopes, envelopes[seed], _TRIAL_SWEEPS) for seed in np.unique(seeds)]
    _, centroids, _ = max(trials, key=lambda trial: trial[2])
    return _swept(envelopes, centroids, _SWEEPS)[0]


def _swept(
    envelopes: Float[np.ndarray, "f k t"], centroids: Float[np.ndarray, "k t"], num_sweeps: int
) -> tuple[Int[np.ndarray, "f k"], Float[np.ndarray, "k t"], float]:
    """Assignments and centroids in turn, at most so often; the last of both, and the sum of the correlations."""
    num_classes = envelopes.shape[1]
    before = None
    while True:
        scores = envelopes @ centroids.T  # (f, class, source)
        permutations = np.stack([_matched(score) for score in scores])
        num_sweeps -= 1
        if num_sweeps == 0 or (before is not None and np.array_equal(permutations, before)):
            return permutations, centroids, float(np.take_along_axis(scores, permutations[:, None], 1).sum())
        before = permutations
        chosen = (permutations[:, :, None] == np.arange(num_classes)).astype(envelopes.dtype)
        centroids = _normalized(np.tensordot(chosen, envelopes, ((0, 2), (0, 1))))


def _refined(envelopes: Float[np.ndarray, "f k t"], permutations: Int[np.ndarray, "f k"]) -> Int[np.ndarray, "f k"]:
    """One frequency at a time, the assignment that those about it ask for."""
    permutations = permutations.copy()
    aligned = np.take_along_axis(envelopes, permutations[:, :, None], 1)
    total = aligned.sum(0)
    related = [_related(f, len(envelopes)) for f in range(len(envelopes))]
    for _ in range(_REFINEMENTS):
        is_settled = True
        for f, others in enumerate(related):
            centroids = aligned[others].sum(0) / max(len(others), 1) + (total - aligned[f]) / len(envelopes)
            permutation = _matched(envelopes[f] @ centroids.T)
            if not np.array_equal(permutation, permutations[f]):
                is_settled = False
                permutations[f] = permutation
                total = total - aligned[f] + envelopes[f][permutation]
                aligned[f] = envelopes[f][permutation]
        if is_settled:
            break
    return permutations


def _related(frequency: int, num_frequencies: int) -> Int[np.ndarray, " n"]:
    """The neighbours of a frequency, and those about an octave below and above."""
    near = np.arange(frequency - _NEIGHBOURS, frequency + _NEIGHBOURS + 1)
    octaves = np.concatenate([np.arange(middle - 1, middle + 2) for middle in (frequency // 2, 2 * frequency)])
    related = np.unique(np.concatenate([near, octaves]))
    return related[(related >= 0) & (related < num_frequencies) & (related != frequency)]


def _matched(scores: Float[np.ndarray, "class source"]) -> Int[np.ndarray, " source"]:
    """The class of each source in the assignment of the highest sum."""
    return linear_sum_assignment(scores.T, maximize=True)[1]
