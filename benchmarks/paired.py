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


def crossed_interval(values: np.ndarray) -> Interval:
    """The mean of a table whose rows and columns are both drawn, such as of women and men, with its 95 % interval.

    Values of one row have its speaker in common, those of one column theirs, and so say less than as many drawn apart.
    The variance of the mean is estimated from the mean squares of rows, columns and what is left (a two-way layout of
    random effects without replication), its degrees of freedom by Satterthwaite's approximation. The interval of a
    single row or column is infinite.
    """
    rows, columns = values.shape
    mean = float(values.mean())
    if min(rows, columns) == 1:
        return Interval(mean, -np.inf, np.inf, values.size)
    of_rows, of_columns = values.mean(1), values.mean(0)
    rest = values - of_rows[:, None] - of_columns + mean
    squares = np.array([columns * of_rows.var(ddof=1), rows * of_columns.var(ddof=1), 0.0])
    degrees = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    squares[2] = np.square(rest).sum() / degrees[2]
    variance = max(squares[0] + squares[1] - squares[2], squares[2])
    if variance == 0:
        return Interval(mean, mean, mean, values.size)
    freedom = variance**2 / np.sum(np.square(squares) / degrees)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance / values.size))
    return Interval(mean, mean - half, mean + half, values.size)


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """The mean of `ours` minus `theirs` over the scenes that both have, with its 95 % confidence interval.

    Raises:
        ValueError: if they share no scene.
    """
    return mean_interval({scene: ours[scene] - theirs[scene] for scene in ours.keys() & theirs.keys()})
