"""Views of a `QTensor`: the same codes under other axes.

The program core asks for a view wherever a program moves a weight before using it. A
view is given only if decoding it equals the view of the decoded weight, bit for bit;
else ``None``, and the caller decodes.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jeff.quantize import groups

if TYPE_CHECKING:
    from jeff.quantize.qtensor import QTensor

__all__ = ["reshape", "slice_", "take", "transpose"]


def transpose(w: "QTensor", permutation: Sequence[int]) -> "QTensor":
    """Axes permuted.

    Args:
      w: The weight.
      permutation: Old axis of every new axis.

    Returns:
      The weight of shape ``[w.shape[p] for p in permutation]``.

    Raises:
      ValueError: If `permutation` is not one of the axes of `w`.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> w = jax.random.normal(jax.random.key(0), (64, 8))
      >>> q = quantize(w, QuantConfig(bits=4, group_size=32))
      >>> turned = transpose(q, (1, 0))
      >>> turned.shape, turned.contract, bool((turned.decode() == q.decode().T).all())
      ((8, 64), (-1,), True)
    """
    ndim = w.ndim
    order = tuple(p % ndim for p in permutation)
    if sorted(order) != list(range(ndim)):
        raise ValueError(f"{tuple(permutation)} is not a permutation of {ndim} axes")
    moved = jax.tree.map(lambda a: jnp.transpose(a, order), w)
    contract = tuple(order.index(c + ndim) - ndim for c in w.contract)
    return dataclasses.replace(moved, contract=contract)


def take(w: "QTensor", indices: jax.Array, axis: int) -> "QTensor | None":
    """Entries along one axis, which is replaced by the axes of `indices`.

    Args:
      w: The weight.
      indices: Integers of any shape; out of range as in `jnp.take`.
      axis: A stack or output axis.

    Returns:
      The weight, or ``None`` if `axis` is contracted or groups cross it.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> q = quantize(jnp.ones((3, 64, 8)), QuantConfig(bits=4, group_size=32))
      >>> take(q, jnp.array([2, 0]), 0).shape, take(q, jnp.array(1), 1)
      ((2, 64, 8), None)
    """
    ndim, axis = w.ndim, axis % w.ndim
    if not w.can_index(axis):
        return None
    taken = jax.tree.map(lambda a: jnp.take(a, indices, axis=axis), w)
    # Axes are counted from the end: only those before the new ones move.
    more = jnp.ndim(indices) - 1
    contract = tuple(c - more if c + ndim < axis else c for c in w.contract)
    return dataclasses.replace(taken, contract=contract)


def slice_(
    w: "QTensor", starts: Sequence[int], limits: Sequence[int]
) -> "QTensor | None":
    """The part ``[starts, limits)``, static.

    Args:
      w: The weight.
      starts: First entry along every axis.
      limits: Entry after the last along every axis.

    Returns:
      The weight; ``None`` if the part is empty, cuts a group, or starts inside a tile
      of packed codes (it may end in one: the rest becomes padding).

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> q = quantize(jnp.ones((64, 8)), QuantConfig(bits=4, group_size=32), stride=1)
      >>> slice_(q, (32, 0), (64, 4)).shape, slice_(q, (16, 0), (64, 4))
      ((32, 4), None)
    """
    shape, packed_axis = w.shape, w.contract[-1] + w.ndim
    tile = 32 * w.stride
    words, scales, pad = [], [], 0
    for axis, (start, limit) in enumerate(zip(starts, limits, strict=True)):
        if not 0 <= start < limit <= shape[axis]:
            return None
        group = shape[axis] // w.scale.shape[axis]
        shared = w.scale.shape[axis] == 1
        if not shared and (start % group or limit % group):
            return None
        scales.append((0, 1) if shared else (start // group, limit // group))
        if axis != packed_axis:
            words.append((start, limit))
            continue
        if start % tile:
            return None
        end = -(-limit // tile) * tile
        pad = end - limit
        words.append((start * w.bits // 32, end * w.bits // 32))

    def cut(a, parts):
        return lax.slice(a, [p[0] for p in parts], [p[1] for p in parts])

    return dataclasses.replace(
        w,
        packed=cut(w.packed, words),
        scale=cut(w.scale, scales),
        zero=None if w.zero is None else cut(w.zero, scales),
        pad=pad,
    )


def reshape(w: "QTensor", shape: Sequence[int]) -> "QTensor | None":
    """Axes split, merged, and axes of size 1 put in or left out.

    Args:
      w: The weight.
      shape: New shape of the same size.

    Returns:
      The weight; ``None`` if a contraction axis would be merged with another kind or
      out of order, or if the groups or the packed codes of the new axes would not be
      whole.

    Raises:
      ValueError: If the size differs.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> q = quantize(jnp.ones((64, 8)), QuantConfig(bits=4, group_size=32))
      >>> reshape(q, (64, 2, 4)).shape, reshape(q, (512,))
      ((64, 2, 4), None)
    """
    new = tuple(shape)
    if math.prod(new) != w.size:
        raise ValueError(f"a weight of shape {w.shape} cannot have shape {new}")
    if new == w.shape:
        return w
    if w.shape[w.contract[-1]] == 1:
        return None  # its one code still takes a tile of words
    contracted = [c + w.ndim for c in w.contract if w.shape[c] != 1]
    words, scales = [1] * len(new), [1] * len(new)
    order: dict[int, tuple[int, ...]] = {}  # new axes by the first old one
    for old_axes, new_axes in _blocks(w.shape, new):
        block = _Block(
            [w.shape[a] for a in old_axes],
            [w.scale.shape[a] for a in old_axes],
            [new[a] for a in new_axes],
        )
        counts = block.groups()
        if counts is None:
            return None
        sizes = list(block.new)
        inside = [a for a in old_axes if a in contracted]
        if inside:
            first = contracted.index(inside[0])
            if contracted[first : first + len(inside)] != list(old_axes):
                return None  # another kind among them, or another order
            order[inside[0]] = tuple(new_axes)
        if contracted[-1] in inside:
            moved = len(old_axes) > 1 or len(new_axes) > 1
            if moved and (w.pad or sizes[-1] % (32 * w.stride)):
                return None
            sizes[-1] = (sizes[-1] + w.pad) * w.bits // 32
        for a, size, count in zip(new_axes, sizes, counts, strict=True):
            words[a], scales[a] = size, count
    contract = tuple(a - len(new) for c in contracted for a in order.get(c, ()))
    return dataclasses.replace(
        w,
        packed=w.packed.reshape(words),
        scale=w.scale.reshape(scales),
        zero=None if w.zero is None else w.zero.reshape(scales),
        contract=contract,
    )


class _Block(NamedTuple):
    """Neighboring axes that a reshape replaces by others of the same total size."""

    old: Sequence[int]
    old_groups: Sequence[int]
    new: Sequence[int]

    def groups(self) -> list[int] | None:
        """Number of groups along every new axis, or ``None`` if groups would tear.

        A group must be a row-major run of the old axes and of the new ones.
        """
        runs = [n // g for n, g in zip(self.old, self.old_groups, strict=True)]
        length = math.prod(runs)
        if groups.split_run(self.old, length) != tuple(runs):
            return None
        parts = groups.split_run(self.new, length)
        if parts is None:
            return None
        return [n // part for n, part in zip(self.new, parts, strict=True)]


def _blocks(
    old: Sequence[int], new: Sequence[int]
) -> list[tuple[list[int], list[int]]]:
    """Smallest blocks of axes of equal size, axes of size 1 left out."""
    olds = [a for a, n in enumerate(old) if n != 1]
    news = [a for a, n in enumerate(new) if n != 1]
    blocks = []
    while olds:
        left, right = [olds.pop(0)], [news.pop(0)]
        while True:
            have = math.prod(old[a] for a in left)
            want = math.prod(new[a] for a in right)
            if have == want:
                break
            if have < want:
                left.append(olds.pop(0))
            else:
                right.append(news.pop(0))
        blocks.append((left, right))
    return blocks
