"""Large images made small enough to draw."""

import numpy as np
from jaxtyping import Float

_MAX_FRAMES = 1000  # more than a panel has pixels
_MAX_FREQUENCIES = 600


def tile_shape(num_frames: int, num_frequencies: int) -> tuple[int, int]:
    """The smallest tiles of which there are at most 1000 over time and 600 over frequency: frames, frequencies."""
    return -(-num_frames // _MAX_FRAMES), -(-num_frequencies // _MAX_FREQUENCIES)


def max_pool(
    values: Float[np.ndarray, "frames frequencies"], tile: tuple[int, int]
) -> Float[np.ndarray, "columns rows"]:
    """The largest value in each tile; those at the far ends may be smaller."""
    return _reduce(np.maximum, values, tile)


def mean_pool(
    values: Float[np.ndarray, "frames frequencies"], tile: tuple[int, int]
) -> Float[np.ndarray, "columns rows"]:
    """The mean of each tile; those at the far ends may be smaller."""
    num_frames, num_frequencies = (
        np.minimum(size, n - np.arange(0, n, size)) for n, size in zip(values.shape, tile, strict=True)
    )
    return _reduce(np.add, values, tile) / np.multiply.outer(num_frames, num_frequencies)


def _reduce(
    operation: np.ufunc, values: Float[np.ndarray, "frames frequencies"], tile: tuple[int, int]
) -> Float[np.ndarray, "columns rows"]:
    if tile == (1, 1):
        return values
    for axis, size in enumerate(tile):
        values = operation.reduceat(values, np.arange(0, values.shape[axis], size), axis=axis)
    return values
