"""Origins: which axes of a leaf an axis of a value is made of."""

import pytest

from jeff.program import origin
from jeff.program.origin import Atom

W = origin.leaf("w", (2, 12, 5))


def sizes(o):
    return [[(a.axis, a.size) for a in axis] for axis in o.axes]


def test_transposes_and_reshapes_keep_track():
    moved = W.transpose((2, 0, 1))
    assert sizes(moved) == [[(2, 5)], [(0, 2)], [(1, 12)]]
    split = W.reshape((2, 3, 4, 5))
    assert sizes(split) == [[(0, 2)], [(1, 3)], [(1, 4)], [(2, 5)]]
    merged = split.reshape((24, 5))
    assert sizes(merged) == [[(0, 2), (1, 3), (1, 4)], [(2, 5)]]
    assert sizes(merged.reshape((2, 12, 5))) == [[(0, 2)], [(1, 3), (1, 4)], [(2, 5)]]
    assert merged.is_view and W.reshape((120, 1)).is_view


def test_a_reshape_across_leaf_axes_is_derived_not_wrong():
    o = origin.leaf("w", (4, 6)).reshape((3, 8))
    assert o.derived and o.axes == () and o.leaves == ("w",)


def test_slices_of_whole_axes_only():
    assert sizes(W.slice((0, 4, 0), (2, 8, 5))) == [[(0, 2)], [(1, 4)], [(2, 5)]]
    assert W.reshape((24, 5)).slice((0, 0), (6, 5)).derived


def test_broadcasts_mark_repetition():
    o = origin.leaf("b", (3,)).broadcast_in_dim((3,), (4, 3), (1,))
    assert o.broadcast and sizes(o) == [[(None, 4)], [(0, 3)]]
    same = origin.leaf("b", (3,)).broadcast_in_dim((3,), (1, 3), (1,))
    assert not same.broadcast and sizes(same) == [[], [(0, 3)]]


def test_scans_take_entries_of_the_first_axis():
    o = W.scanned((4, 0))
    assert o.stack == (0,) and o.loops == ((4, 0),)
    assert sizes(o) == [[(1, 12)], [(2, 5)]]
    assert W.as_derived().scanned((1,)).loops == ((1,),)


def test_dropping_axes_of_size_one():
    o = W.slice((0, 0, 0), (1, 12, 5)).drop((0,))
    assert sizes(o) == [[(1, 12)], [(2, 5)]]


def test_what_is_computed_from_several():
    a, b = origin.leaf("a", (2,)), origin.leaf("b", (2,))
    both = origin.derive([a, origin.constant(), b])
    assert both is not None and both.leaves == ("a", "b") and both.derived
    assert origin.derive([a, None]) is None
    only = origin.derive([origin.constant(), origin.constant()])
    assert only is not None and not only.is_weight


def test_kernels_side_by_side_keep_their_parts():
    q, k = origin.leaf("q", (4, 2)), origin.leaf("k", (4, 3))
    o = origin.concatenate([q, k])
    assert o is not None and o.derived and o.parts == (q, k)
    assert o.transpose((1, 0)).parts[1].axes == ((Atom(1, 3),), (Atom(0, 4),))
    assert o.reshape((5, 4)).parts == ()
    summed = origin.concatenate([q, k.as_derived()])
    assert summed is not None and summed.parts == ()


@pytest.mark.parametrize("shape", [(120,), (2, 60), (24, 5), (2, 2, 6, 5), (1, 2, 60)])
def test_regrouping_never_loses_an_element(shape):
    total = 1
    for axis in W.reshape(shape).axes:
        for atom in axis:
            total *= atom.size
    assert total == 120
