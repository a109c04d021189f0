"""Batches of a corpus: in an order that the seed and the epoch say, read ahead by threads, without broken items."""

import warnings
from collections.abc import Callable, Iterator
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
    corpus may have `name_of(i)`, by which warnings call an item, and `fingerprint`, a text that other data do not have,
    so that no training goes on with them.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Batch(NamedTuple):
    """Items of one step.

    Attributes:
        data: the program's arguments, stacked; None where all items were broken.
        weights: 1 of an item that counts; 0 of one that only fills the last batch or takes the place of a broken one.
        skipped: how many were broken.
    """

    data: tuple | None
    weights: Float[np.ndarray, " items"]
    skipped: int


def num_batches(corpus: Corpus, batch_size: int) -> int:
    return -(-len(corpus) // batch_size)


def arguments_of(item: Any) -> tuple:
    """An item as a tuple of numpy arrays."""
    return jax.tree.map(np.asarray, item if isinstance(item, tuple) else (item,))


def layout_of(arguments: tuple) -> list[tuple]:
    """Shapes and types."""
    return [(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(arguments)]


def is_whole(arguments: tuple) -> bool:
    """Whether all values are finite."""
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(arguments))


def fingerprint_of(*corpora: Corpus) -> str:
    """A text by which other corpora are known, if they say so."""
    return ",".join(str(getattr(corpus, "fingerprint", "")) for corpus in corpora)


def order_of(corpus: Corpus, seed: int, epoch: int | None) -> list[int]:
    """The items of an epoch in order; as they stand if that is None."""
    if epoch is None:
        return list(range(len(corpus)))
    return np.random.default_rng((seed, epoch)).permutation(len(corpus)).tolist()


def batches(
    corpus: Corpus,
    batch_size: int,
    *,
    seed: int,
    epoch: int | None,
    layout: list[tuple] | None = None,
    first: int = 0,
    num_workers: int = 1,
) -> Iterator[Batch]:
    """The batches of an epoch from the first on.

    Args:
        layout: shapes and types of all items (`layout_of`); by default those of a batch's own first one.

    Raises:
        InputError: for an item of other shapes, or one that cannot be read, by its name.
    """
    order = order_of(corpus, seed, epoch)
    parts = [order[i : i + batch_size] for i in range(first * batch_size, len(order), batch_size)]
    pool = ThreadPoolExecutor(num_workers)
    waiting, rest = [], iter(parts)
    try:
        for part in islice(rest, _AHEAD):
            waiting.append((part, [pool.submit(corpus.__getitem__, i) for i in part]))
        while waiting:
            part, items = waiting.pop(0)
            for later in islice(rest, 1):
                waiting.append((later, [pool.submit(corpus.__getitem__, i) for i in later]))
            read = [_read(corpus, number, item.result) for number, item in zip(part, items, strict=True)]
            yield _batch(corpus, part, read, batch_size, layout)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def item_of(corpus: Corpus, number: int) -> tuple:
    """An item as a tuple of numpy arrays.

    Raises:
        InputError: if it cannot be read, by its name.
    """
    return _read(corpus, number, lambda: corpus[number])


def _read(corpus: Corpus, number: int, item: Callable[[], Any]) -> tuple:
    try:
        return arguments_of(item())
    except Exception as error:
        raise InputError(f"corpus: {name_of(corpus, number)} cannot be read: {error}") from error


def _batch(
    corpus: Corpus, numbers: list[int], items: list[tuple], batch_size: int, layout: list[tuple] | None
) -> Batch:
    layout = layout_of(items[0]) if layout is None else layout
    for number, item in zip(numbers, items, strict=True):
        if layout_of(item) != layout:
            raise InputError(
                f"corpus: {name_of(corpus, number)} has arrays of {layout_of(item)}, others of {layout}; items must "
                "have the same shapes and types"
            )
    whole = [is_whole(item) for item in items]
    for number, counts in zip(numbers, whole, strict=True):
        if not counts:
            message = f"{name_of(corpus, number)} holds infinite or nan values and is left out"
            warnings.warn(message, TrainingDataWarning, stacklevel=2)
    missing = batch_size - len(items)
    weights = np.array([*map(float, whole), *[0.0] * missing], np.float32)
    if not any(whole):
        return Batch(None, weights, len(items))
    # What counts for nothing must still be numbers: zero times nan is nan.
    spare = items[whole.index(True)]
    filled = [item if counts else spare for item, counts in zip(items, whole, strict=True)]
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *filled, *[spare] * missing)
    return Batch(data, weights, len(items) - sum(whole))


def name_of(corpus: Corpus, number: int) -> str:
    """What messages call an item."""
    named = getattr(corpus, "name_of", None)
    return f"item {number}" if named is None else str(named(number))
