"""Rows of a map of weights: leaves, or the entries of leaves that stack layers."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import tree
from jeff.faults.stacks import check_stacks
from jeff.sweep.single_flips.fault_space import FaultSpace, stored_words

__all__ = ["Entries", "entries"]


class Entries(NamedTuple):
    """Where the words of every row are.

    Attributes:
      rows: The rows as a fault space: their names, words and bits.
      leaf: int32 ``[rows]``, the number of each row's leaf.
      start: int32 ``[rows]``, place of a row's first word in its leaf.
      runs: int32 ``[rows, runs, 2]``: length and step, in words, of the nested runs
        that a row's words lie in, the outermost first.
    """

    rows: FaultSpace
    leaf: np.ndarray
    start: np.ndarray
    runs: np.ndarray

    def place(self, row: Any, number: Any) -> tuple[jax.Array, jax.Array]:
        """Leaf and word of a row's word.

        Args:
          row: Number of the row, usually traced.
          number: Number of the word in the row, row-major; int32 ``[]``.

        Returns:
          Number of the leaf and place of the word in it, int32 ``[]``.
        """
        position, rest = jnp.asarray(self.start)[row], number
        runs = jnp.asarray(self.runs)[row]
        for i in reversed(range(self.runs.shape[1])):
            length, step = runs[i]
            position = position + (rest % length) * step
            rest = rest // length
        return jnp.asarray(self.leaf)[row], position


def entries(
    space: FaultSpace, params: Any, axes: Mapping[str, tuple[int, ...]]
) -> Entries:
    """The rows of a map.

    Args:
      space: The leaves.
      params: The pytree that they are of, or its shapes.
      axes: Stack axes by the leaf's name (`jeff.faults.on_weights`); leaves without are
        a row each, and so are stored leaves whose codes are of another shape.

    Returns:
      The rows, leaf by leaf and entry by entry, an entry as ``"NAME[1]"``.

    Raises:
      ValueError: If a name of `axes` is no leaf's, or a leaf has no such axis.

    Examples:
      >>> params = {"layers": jnp.ones((3, 2, 4)), "head": jnp.ones((4, 2))}
      >>> from jeff.sweep import enumerate_faults
      >>> found = entries(enumerate_faults(params), params, {"layers": (0,)})
      >>> found.rows.names, found.rows.words
      (('head', 'layers[0]', 'layers[1]', 'layers[2]'), (8, 8, 8, 8))
      >>> print(*found.place(2, jnp.int32(3)))  # of leaf 1 the word 8 + 3
      1 11
    """
    check_stacks(axes, tree.flatten(params)[0])
    found: list[tuple[str, int, int, int, int, list[tuple[int, int]]]] = []
    for number, (name, words, bits) in enumerate(
        zip(space.names, space.words, space.bits, strict=True)
    ):
        shape, own = _stack(tree.get(params, name), axes.get(name, ()))
        steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        runs = _runs(shape, steps, own)
        each = words // math.prod(shape[i] for i in own)
        for index in np.ndindex(*(shape[i] for i in own)):
            label = f"[{', '.join(map(str, index))}]" if own else ""
            start = sum(i * steps[a] for i, a in zip(index, own, strict=True))
            found.append((name + label, each, bits, number, start, runs))
    names, words, bits, leaf, start, every = zip(*found, strict=True)
    most = max(map(len, every))
    filled = [[(1, 0)] * (most - len(runs)) + runs for runs in every]
    return Entries(
        FaultSpace(names, words, bits), np.array(leaf, np.int32),
        np.array(start, np.int32), np.array(filled, np.int32),
    )  # fmt: skip


def _stack(leaf: Any, axes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the stored words, and their stack axes."""
    shape = tuple(jax.eval_shape(stored_words, leaf).shape)
    return shape, axes if shape == tuple(leaf.shape) else ()


def _runs(shape, steps, stacked) -> list[tuple[int, int]]:
    """Length and step of the axes that are not stacked, neighbours joined."""
    runs: list[tuple[int, int]] = []
    for i, (length, step) in enumerate(zip(shape, steps, strict=True)):
        if i in stacked:
            continue
        if runs and i - 1 not in stacked:
            runs[-1] = (runs[-1][0] * length, step)
        else:
            runs.append((length, step))
    return runs or [(1, 0)]
