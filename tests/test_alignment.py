"""Permutation alignment: planted orders are found again, whatever the number of classes."""

import numpy as np
import pytest

from vbss.alignment import align_permutations
from vbss.errors import InputError


def _masks(num_frequencies, num_frames, num_classes, seed, spread=0.7):
    """Masks of sources that are active together, more or less, at all frequencies."""
    rng = np.random.default_rng(seed)
    activity = rng.gamma(0.3, size=(1, num_frames, num_classes))
    energy = activity * np.exp(spread * rng.normal(size=(num_frequencies, num_frames, num_classes)))
    return energy / energy.sum(-1, keepdims=True)


def _planted(masks, seed):
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(masks.shape[-1]) for _ in masks])
    return np.take_along_axis(masks, orders[:, None], 2), orders


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_planted_orders_are_undone(seed, dtype):
    shape = ((65, 80, 2), (33, 60, 3), (129, 100, 4), (40, 120, 6), (2, 50, 2))[seed]
    shuffled, orders = _planted(_masks(*shape, seed).astype(dtype), seed)
    found = np.take_along_axis(orders, align_permutations(shuffled), 1)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))


def test_activity_that_changes_along_frequency_is_followed():
    """High and low frequencies have little in common, but every frequency has much with its neighbours."""
    rng = np.random.default_rng(0)
    ends = rng.gamma(0.3, size=(2, 1, 150, 2))
    share = np.linspace(0, 1, 100)[:, None, None]
    energy = ((1 - share) * ends[0] + share * ends[1]) * np.exp(0.5 * rng.normal(size=(100, 150, 2)))
    shuffled, orders = _planted(energy / energy.sum(-1, keepdims=True), 1)
    found = np.take_along_axis(orders, align_permutations(shuffled), 1)
    assert (found == found[50]).all(1).mean() > 0.95


def test_permutations_are_permutations_of_any_masks():
    masks = np.random.default_rng(0).random((20, 15, 4))
    masks[3] = 0.25  # says nothing
    permutations = align_permutations(masks)
    np.testing.assert_array_equal(np.sort(permutations, 1), np.broadcast_to(np.arange(4), (20, 4)))


def test_classes_keep_the_number_that_most_frequencies_give_them():
    masks = _masks(30, 60, 3, 0)
    np.testing.assert_array_equal(align_permutations(masks), np.broadcast_to(np.arange(3), (30, 3)))
    shuffled = masks.copy()
    shuffled[:5] = masks[:5][..., [2, 0, 1]]
    permutations = align_permutations(shuffled)
    np.testing.assert_array_equal(np.take_along_axis(shuffled, permutations[:, None], 2), masks)


@pytest.mark.parametrize("shape", [(10, 20, 1), (1, 20, 3), (1, 1, 1)])
def test_where_there_is_nothing_to_align_nothing_changes(shape):
    masks = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(align_permutations(masks), np.broadcast_to(np.arange(shape[2]), shape[::2]))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.ones((3, 4)), "shape"),
        (np.ones((3, 0, 2)), "none of them 0"),
        (np.ones((3, 4, 2), int), "floating"),
        (np.ones((3, 4, 2), complex), "floating"),
        (np.full((3, 4, 2), np.nan), "finite"),
    ],
)
def test_bad_masks_are_refused(masks, message):
    with pytest.raises(InputError, match=message):
        align_permutations(masks)
