"""Means over scenes, and paired differences between two systems on the same scenes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of confidence


class Interval(NamedTuple):
    """A mean over scenes with the ends of its confidence interval, and the number of scenes."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Mapping[int, float]) -> Interval:
    """The mean of `values` and its 95 % confidence interval by Student's t distribution.

    The interval of a single value is infinite.

    Raises:
        ValueError: if there are no values.
    """
    sample = np.array(list(values.values()), dtype=float)
    if not len(sample):
        raise ValueError("values must not be empty.")
    mean = float(sample.mean())
    if len(sample) == 1:
        return Interval(mean, -np.inf, np.inf, 1)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half, len(sample))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """The mean of `ours` minus `theirs` over the scenes that both have, with its 95 % confidence interval.

    Raises:
        ValueError: if they share no scene.
    """
    return mean_interval({scene: ours[scene] - theirs[scene] for scene in ours.keys() & theirs.keys()})
