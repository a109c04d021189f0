import numpy as np
import pytest

from vbss.plots.pooling import max_pool, mean_pool, tile_shape


@pytest.mark.parametrize(
    ("shape", "tile"),
    [((1, 1), (1, 1)), ((1000, 600), (1, 1)), ((1001, 600), (2, 1)), ((1000, 601), (1, 2)), ((37501, 6145), (38, 11))],
)
def test_tiles_are_the_smallest_that_leave_few_enough(shape, tile):
    assert tile_shape(*shape) == tile


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (3, 2), (7, 5), (10, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pooling_is_that_of_a_loop_over_tiles(tile, dtype):
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    rows, columns = range(0, 7, tile[0]), range(0, 5, tile[1])
    for pool, one in [(max_pool, np.max), (mean_pool, np.mean)]:
        expected = [[one(values[i : i + tile[0], j : j + tile[1]]) for j in columns] for i in rows]
        np.testing.assert_allclose(pool(values, tile), expected, atol=1e-6)
