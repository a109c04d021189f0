"""Batches of a corpus: in an order that the seed and the epoch say, read ahead by threads, without broken items."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from vbss.errors import InputError

_AHEAD = 2  # batches that are read before they are asked for


class TrainingDataWarning(UserWarning):
    """An item of a corpus was left out."""


@runtime_checkable
class Corpus(Protocol):
    """Items by number: a list, or what reads or simulates them one by one; each the arguments of a model's program.

    All items have arrays of the same shapes. Item i is the same whenever it is asked for, by whichever thread. A
    corpus may have `name_of(i)`, by which warnings call an item.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Batch(NamedTuple):
    """Items of one step.

    Attributes:
        data: the program's arguments, stacked.
        weights: 1 of an item that counts; 0 of one that only fills the last batch or takes the place of a broken one.
        skipped: how many were broken.
    """

    data: tuple
    weights: Float[np.ndarray, " items"]
    skipped: int


def num_batches(corpus: Corpus, batch_size: int) -> int:
    return -(-len(corpus) // batch_size)


def order_of(corpus: Corpus, seed: int, epoch: int | None) -> list[int]:
    """The items of an epoch in order; as they stand if that is None."""
    if epoch is None:
        return list(range(len(corpus)))
    return np.random.default_rng((seed, epoch)).permutation(len(corpus)).tolist()


def batches(
    corpus: Corpus, batch_size: int, *, seed: int, epoch: int | None, first: int = 0, num_workers: int = 1
) -> Iterator[Batch]:
    """The batches of an epoch from the first on.

    Raises:
        InputError: for items of different shapes, or when all of a batch is broken.
    """
    order = order_of(corpus, seed, epoch)
    parts = [order[i : i + batch_size] for i in range(first * batch_size, len(order), batch_size)]
    with ThreadPoolExecutor(num_workers) as pool:
        waiting, rest = [], iter(parts)
        try:
            for part in islice(rest, _AHEAD):
                waiting.append((part, [pool.submit(corpus.__getitem__, i) for i in part]))
            while waiting:
                part, items = waiting.pop(0)
                for later in islice(rest, 1):
                    waiting.append((later, [pool.submit(corpus.__getitem__, i) for i in later]))
                yield _batch(corpus, part, [item.result() for item in items], batch_size)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(corpus: Corpus, numbers: list[int], items: list[Any], batch_size: int) -> Batch:
    arguments = [item if isinstance(item, tuple) else (item,) for item in items]
    arguments = [jax.tree.map(np.asarray, item) for item in arguments]
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(item)] for item in arguments]
    for number, shape in zip(numbers, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"corpus: {_name(corpus, number)} has arrays of {shape}, {_name(corpus, numbers[0])} of {shapes[0]}; "
                "items must have the same shapes and types"
            )
    is_whole = [all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(item)) for item in arguments]
    for number, whole in zip(numbers, is_whole, strict=True):
        if not whole:
            warnings.warn(
                f"{_name(corpus, number)} holds infinite or nan values and is left out",
                TrainingDataWarning,
                stacklevel=2,
            )
    if not any(is_whole):
        raise InputError(f"corpus: all of {', '.join(_name(corpus, n) for n in numbers)} hold infinite or nan values")
    # What counts for nothing must still be numbers: zero times nan is nan.
    spare = arguments[is_whole.index(True)]
    filled = [item if whole else spare for item, whole in zip(arguments, is_whole, strict=True)]
    missing = batch_size - len(filled)
    weights = np.array([*map(float, is_whole), *[0.0] * missing], np.float32)
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *filled, *[spare] * missing)
    return Batch(data, weights, len(is_whole) - sum(is_whole))


def _name(corpus: Corpus, number: int) -> str:
    name_of = getattr(corpus, "name_of", None)
    return f"item {number}" if name_of is None else str(name_of(number))
