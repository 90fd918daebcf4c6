"""Indices carried backwards: NumPy does the same operation forwards as the check."""

import numpy as np
import pytest

from jeff.program import channel_index


@pytest.mark.parametrize("contract", [(0,), (2, 1), (1, 2), (3, 0, 1)])
def test_contracted_numbers_channels_in_the_order_given(contract):
    shape = (2, 3, 4, 5)
    index = np.broadcast_to(channel_index.contracted(shape, contract), shape)
    for place in np.ndindex(shape):
        channel = np.ravel_multi_index(
            [place[a] for a in contract], [shape[a] for a in contract]
        )
        assert index[place] == channel


@pytest.mark.parametrize(
    ("old", "new"),
    [((4, 6), (24,)), ((24,), (2, 12)), ((4, 6), (4, 2, 3)), ((2, 1, 6), (2, 6)),
     ((6, 4), (3, 8)), ((5, 4), (5, 1, 4)), ((1,), (1, 1))],
)  # fmt: skip
@pytest.mark.parametrize("varying", ["all", "last"])
def test_reshaped_is_undone_by_the_reshape(old, new, varying):
    index = np.arange(np.prod(new)).reshape(new)
    if varying == "last":
        index = index[(slice(0, 1),) * (len(new) - 1)]
    before = np.broadcast_to(channel_index.reshaped(index, new, old), old)
    np.testing.assert_array_equal(before.reshape(new), np.broadcast_to(index, new))


def test_reshaped_expands_no_axis_needlessly():
    index = np.arange(6).reshape(1, 1, 6)
    assert channel_index.reshaped(index, (50, 7, 6), (350, 2, 3)).shape == (1, 2, 3)


def test_embedded_is_undone_by_the_slice():
    index = np.arange(6).reshape(2, 1, 3)
    whole = channel_index.embedded(index, (5, 4, 3), (1, 0, 0), (3, 4, 3))
    assert whole.shape == (5, 1, 3)
    np.testing.assert_array_equal(whole[1:3], index)
    assert (whole[[0, 3, 4]] == -1).all()


def test_merged_keeps_channels_and_refuses_two_for_one_element():
    a, b = np.array([0, 1, -1]), np.array([-1, 1, 2])
    np.testing.assert_array_equal(channel_index.merged(a, b), [0, 1, 2])
    assert channel_index.merged(a, b[::-1]) is None
    assert channel_index.merged(np.array([-1]), b).shape == (3,)


def test_axes_that_the_operand_lacks_tie_their_channels():
    index = np.arange(12).reshape(2, 3, 2)
    moved, ties = channel_index.onto_axes(index, {0: 2, 1: 0}, 3)
    assert moved.shape == (2, 2, 1)
    np.testing.assert_array_equal(moved[..., 0], index[:, 0].T)
    assert sorted(map(tuple, ties)) == [
        (0, 2, 4), (1, 3, 5), (6, 8, 10), (7, 9, 11)
    ]  # fmt: skip


def test_a_repeated_element_that_scales_once_and_stays_once_is_refused():
    index = np.array([[0, 1], [-1, 1]])
    assert channel_index.onto_axes(index, {0: 1}, 1) is None
    assert channel_index.onto_operand(np.array([0, -1]), ()) is None
    kept, ties = channel_index.onto_operand(np.array([0, 1]), (2,))
    assert kept.tolist() == [0, 1] and ties == []
