"""Reasons to doubt what was inferred, a sentence each."""

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np

from vbss.inference import Solution, Status

_FAINT = 0.01  # of the energy: less of a source, in a whole recording, is hardly one
POOR_SDR = 5.0  # dB of expected SDR, below which a source is doubted


def is_usable(solution: Solution) -> bool:
    """Whether an inference came to an end with numbers."""
    return solution.status not in (Status.nonfinite, Status.interrupted)


def failures(solution: Solution) -> Iterator[str]:
    """How an inference ended, where that was not well."""
    if solution.status in (Status.bound_decreased, Status.nonfinite, Status.interrupted):
        yield solution.status.explanation


def doubtful_directions(solution: Solution, direction_posterior: np.ndarray, directions: np.ndarray) -> Iterator[str]:
    """Of a mixture model: failures, uncertain directions, and sources that may be one."""
    yield from failures(solution)
    if solution.status is Status.nonfinite:
        return
    for source, probability in enumerate(direction_posterior.max(axis=1), 1):
        if probability < 0.5:
            yield f"the direction of source {source} is uncertain: the most probable one has {probability:.2f}."
    for first, second in combinations(range(len(directions)), 2):
        if directions[first] == directions[second]:
            yield f"sources {first + 1} and {second + 1} share one direction: they may be one source."


def doubtful_number(probabilities: np.ndarray) -> Iterator[str]:
    """Of a count, given the probabilities of 1, 2, ... sources: that it failed, or is uncertain."""
    if np.isnan(probabilities).any():
        yield "the sources could not be counted, and are taken for one."
    elif probabilities.max() < 0.5:
        number, probability = 1 + int(np.argmax(probabilities)), probabilities.max()
        yield f"the number of sources is uncertain: the most probable one, {number}, has {probability:.2f}."


def too_many_sources(energy_shares: np.ndarray, num_microphones: int) -> Iterator[str]:
    """Sources of which hardly anything is heard in a whole recording, or more than an array can hold apart."""
    faint = f"has less than {100 * _FAINT:.0f} % of the energy"
    for number in np.flatnonzero(energy_shares < _FAINT) + 1:
        yield f"source {number} {faint}: there may be fewer sources, or several in one direction."
    num_sources = len(energy_shares)
    if num_sources > num_microphones:
        yield f"{num_sources} sources are more than the {num_microphones} microphones: they are separated less well."


def poor_sources(expected_sdr: Iterable[float]) -> Iterator[str]:
    """Sources that the posterior itself does not trust."""
    for number, ratio in enumerate(expected_sdr, 1):
        if ratio < POOR_SDR:
            yield f"source {number} is poorly separated: an SDR of {ratio:.1f} dB is expected."
