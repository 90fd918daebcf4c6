"""Index arrays that say which channel each element of a value belongs to.

An index is an int array that broadcasts against the value: of size 1 along axes on
which the channel does not depend, -1 where an element belongs to no channel. The
functions here carry one backwards, from the result of an operation to its operand.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["contracted", "embedded", "merged", "onto_axes", "onto_operand", "reshaped"]


def contracted(shape: Sequence[int], contract: Sequence[int]) -> np.ndarray:
    """The channels of an operand that a product sums over.

    Args:
      shape: Shape of the operand.
      contract: Its contracted axes, in the order in which channels are numbered.

    Returns:
      Channels in row-major order of `contract`; size 1 along all other axes.

    Examples:
      >>> contracted((2, 3, 2), (2, 1)).tolist()
      [[[0, 3], [1, 4], [2, 5]]]
    """
    sizes = [shape[i] for i in contract]
    index = np.arange(math.prod(sizes)).reshape(sizes)
    order = sorted(range(len(contract)), key=lambda i: contract[i])
    index = index.transpose(order)
    return index.reshape([n if i in contract else 1 for i, n in enumerate(shape)])


def merged(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Two indices of one value as one.

    Args:
      a: An index.
      b: Another, that broadcasts against it.

    Returns:
      Their union; ``None`` if they name different channels for one element.

    Examples:
      >>> merged(np.array([0, -1]), np.array([-1, 1])).tolist()
      [0, 1]
    """
    a, b = np.broadcast_arrays(a, b)
    if ((a != b) & (a >= 0) & (b >= 0)).any():
        return None
    return np.maximum(a, b)


def onto_operand(
    index: np.ndarray, shape: Sequence[int]
) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """The index for an operand of an elementwise operation, as `onto_axes`.

    Args:
      index: Index of the result.
      shape: Shape of the operand: that of the result, or ``()``, when all channels
        must share one factor.

    Returns:
      ``(index, ties)`` or ``None``.

    Examples:
      >>> index, ties = onto_operand(np.arange(3), ())
      >>> index.tolist(), [t.tolist() for t in ties]
      (0, [[0, 1, 2]])
    """
    return (index, []) if shape else onto_axes(index, {}, 0)


def reshaped(index: np.ndarray, shape: Sequence[int], old: Sequence[int]) -> np.ndarray:
    """The index before a reshape ``old -> shape``, expanding no axis needlessly.

    Args:
      index: Index of the result.
      shape: Shape of the result.
      old: Shape of the operand.

    Returns:
      Index of the operand.

    Examples:
      >>> reshaped(np.arange(6)[None], (5, 6), (5, 2, 3)).shape
      (1, 2, 3)
    """
    i = j = 0
    pieces: list[tuple[list[int], list[int]]] = []
    while i < len(shape) or j < len(old):
        a, b = [], []
        while True:
            left = math.prod(shape[k] for k in a)
            right = math.prod(old[k] for k in b)
            if left == right and (a or b):
                break
            if left <= right and i < len(shape):
                a.append(i)
                i += 1
            elif j < len(old):
                b.append(j)
                j += 1
            else:
                a.append(i)
                i += 1
        pieces.append((a, b))
    target = []
    expanded = list(index.shape)
    for a, b in pieces:
        if any(index.shape[k] != 1 for k in a):
            for k in a:
                expanded[k] = shape[k]
            target += [old[k] for k in b]
        else:
            target += [1] * len(b)
    return np.broadcast_to(index, expanded).reshape(target)


def onto_axes(
    index: np.ndarray, place: Mapping[int, int], rank: int
) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """The index of an operand whose axis ``a`` is axis ``place[a]`` of the result.

    Args:
      index: Index of the result.
      place: Axis of the result by axis of the operand.
      rank: Number of axes of the operand.

    Returns:
      ``(index, ties)``. Along axes of the result that the operand does not have, it is
      repeated: each entry of `ties` lists channels that must share one factor. ``None``
      if an element would have to scale in one repetition and stay in another.

    Examples:
      >>> index, ties = onto_axes(np.array([[0, 1], [2, 3]]), {0: 1}, 1)
      >>> index.tolist(), [t.tolist() for t in ties]
      ([0, 1], [[0, 2], [1, 3]])
    """
    kept, ties = list(place.values()), []
    lost = [d for d in range(index.ndim) if d not in kept and index.shape[d] != 1]
    if lost:
        rows = np.moveaxis(index, lost, range(len(lost)))
        rows = rows.reshape(math.prod(index.shape[d] for d in lost), -1)
        for column in rows.T:
            if (column >= 0).any() and (column < 0).any():
                return None
            ties.append(column[column >= 0])
        index = index[
            tuple(slice(0, 1) if d in lost else slice(None) for d in range(index.ndim))
        ]
    order = [place[a] for a in range(rank) if a in place]
    rest = [d for d in range(index.ndim) if d not in order]
    shape = [index.shape[place[a]] if a in place else 1 for a in range(rank)]
    return index.transpose([*order, *rest]).reshape(shape), ties


def embedded(
    index: np.ndarray,
    shape: Sequence[int],
    starts: Sequence[int],
    limits: Sequence[int],
) -> np.ndarray:
    """The index of the part ``[starts, limits)`` as an index of the whole.

    Args:
      index: Index of the part.
      shape: Shape of the whole.
      starts: First element of the part along every axis.
      limits: Element after its last.

    Returns:
      Index of the whole, -1 outside of the part.

    Examples:
      >>> embedded(np.arange(2), (5,), (1,), (3,)).tolist()
      [-1, 0, 1, -1, -1]
    """
    cut = [e - s != n for s, e, n in zip(starts, limits, shape, strict=True)]
    sizes = [
        n if c else index.shape[i]
        for i, (n, c) in enumerate(zip(shape, cut, strict=True))
    ]
    whole = np.full(sizes, -1)
    where = tuple(
        slice(s, e) if c else slice(None)
        for s, e, c in zip(starts, limits, cut, strict=True)
    )
    whole[where] = index
    return whole
