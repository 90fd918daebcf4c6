"""Sizes of pictures in patches, and where every patch stands in its picture."""

from typing import Any

import numpy as np

__all__ = ["check_grids", "patch_layout"]


def check_grids(grids: Any, *, merge: int = 2) -> np.ndarray:
    """Checks the sizes of pictures in patches.

    Args:
      grids: Integers ``[I, 3]``: frames, rows and columns of patches of each picture
        (``image_grid_thw`` of `transformers`).
      merge: Side in patches of the squares that become one feature.

    Returns:
      The same, int64.

    Raises:
      TypeError: If they are not integers.
      ValueError: If the shape is wrong, a size is not positive, a picture has more than
        one frame (it is a video), or rows or columns are not divisible by `merge`.

    Examples:
      >>> check_grids([[1, 4, 6]]).shape
      (1, 3)
      >>> check_grids([[1, 4, 6], [1, 4, 5]])
      Traceback (most recent call last):
        ...
      ValueError: grids[1] = (1, 4, 5): rows and columns must be divisible by 2
    """
    array = np.asarray(grids)
    if array.size == 0:
        return np.zeros((0, 3), np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"grids must be integers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"grids must have shape [pictures, 3], got {array.shape}")
    for i, grid in enumerate(array.tolist()):
        label = f"grids[{i}] = {tuple(grid)}"
        if min(grid) < 1:
            raise ValueError(f"{label}: sizes must be positive")
        if grid[0] != 1:
            raise ValueError(f"{label}: videos are not supported, only single pictures")
        if grid[1] % merge or grid[2] % merge:
            raise ValueError(f"{label}: rows and columns must be divisible by {merge}")
    return array.astype(np.int64)


def patch_layout(
    grids: Any, *, merge: int = 2, patches: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Position of every patch in its picture, and the picture's number.

    Patches come square by square: the ``merge * merge`` patches of a square are
    neighbours, squares go row by row.

    Args:
      grids: As in `check_grids`.
      merge: Side of the squares in patches.
      patches: Pad to this many patches.

    Returns:
      int32 ``[P, 2]`` (row, column) and int32 ``[P]``, -1 at padding.

    Raises:
      ValueError: As `check_grids`; if `patches` is too small or not divisible
        by ``merge ** 2``.

    Examples:
      >>> position, segment = patch_layout([[1, 2, 4]], patches=12)
      >>> print(position[:8].T, segment)
      [[0 0 1 1 0 0 1 1]
       [0 1 0 1 2 3 2 3]] [ 0  0  0  0  0  0  0  0 -1 -1 -1 -1]
    """
    grids = check_grids(grids, merge=merge)
    total = int(grids.prod(axis=1).sum())
    patches = total if patches is None else patches
    if patches < total or patches % merge**2:
        raise ValueError(
            f"patches must be a multiple of {merge**2} and at least {total}, as many "
            f"as the pictures have, got {patches}"
        )
    position = np.zeros((patches, 2), np.int32)
    segment = np.full(patches, -1, np.int32)
    start = 0
    for i, (_, rows, columns) in enumerate(grids.tolist()):
        grid = np.indices((rows, columns)).reshape(
            2, rows // merge, merge, columns // merge, merge
        )
        stop = start + rows * columns
        position[start:stop] = grid.transpose(1, 3, 2, 4, 0).reshape(-1, 2)
        segment[start:stop] = i
        start = stop
    return position, segment
