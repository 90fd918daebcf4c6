"""Gathers and dynamic slices of a weight: a layer or an expert of a stack, rows.

JAX writes ``w[i]`` in many ways: as a ``dynamic_slice`` for one index, as a ``gather``
that collapses the indexed axis, and under ``vmap`` as a ``gather`` that keeps it with
size 1 or has batching axes. `Indexing` states all of them in the same terms, and takes
entries out of an origin or out of a stored weight without touching the other entries.

References:
  The semantics of a gather and of its modes: ``jax.lax.gather``,
  https://docs.jax.dev/en/latest/_autosummary/jax.lax.gather.html, and
  https://openxla.org/xla/operation_semantics#gather.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff import base
from jeff.program.origin import Atom, Origin

__all__ = ["Indexing", "follow", "take"]


@dataclasses.dataclass(frozen=True)
class Indexing:
    """One gather or dynamic slice of an operand ``[n_0, n_1, ...]``.

    The output has an axis per operand axis in `kept` and one per axis of the indices
    in `spread`; a batching axis of the operand is one of these.

    Attributes:
      sizes: How much is taken along every operand axis.
      cut: Operand axes that are indexed: only a part is taken, or they are dropped.
      kept: ``(operand axis, output axis)`` of every axis that the output keeps.
      batching: ``(operand axis, index axis)`` of axes that operand and indices share.
      spread: Output axis of every axis of the indices.
      mapped: Operand axis that every component of an index is for.
      fill: What an entry out of bounds becomes; ``None`` if the index is clipped.
      out_shape: Shape of the output.
    """

    sizes: tuple[int, ...]
    cut: tuple[int, ...]
    kept: tuple[tuple[int, int], ...]
    batching: tuple[tuple[int, int], ...]
    spread: tuple[int, ...]
    mapped: tuple[int, ...]
    fill: Any
    out_shape: tuple[int, ...]

    @classmethod
    def of(cls, eqn: Any) -> "Indexing":
        """The indexing that an equation does.

        Args:
          eqn: A ``gather`` or ``dynamic_slice``.

        Returns:
          The same in the terms of this class.

        Examples:
          >>> def pick(w, i):
          ...     return jax.vmap(lambda i: lax.dynamic_slice_in_dim(w, i, 1))(i)
          >>> w, i = jnp.ones((5, 4, 3)), jnp.arange(2)
          >>> eqn = jax.make_jaxpr(pick)(w, i).eqns[-1]
          >>> at = Indexing.of(eqn)
          >>> eqn.primitive.name, at.cut, at.kept, at.spread
          ('gather', (0,), ((0, 1), (1, 2), (2, 3)), (0,))
        """
        shape = eqn.invars[0].aval.shape
        sizes, out_shape = tuple(eqn.params["slice_sizes"]), eqn.outvars[0].aval.shape
        axes = range(len(shape))
        collapsed: Sequence[int] = ()
        batching: tuple[tuple[int, int], ...] = ()
        offsets, mapped, fill = list(axes), tuple(axes), None
        if eqn.primitive.name == "gather":
            numbers = eqn.params["dimension_numbers"]
            collapsed = tuple(map(int, numbers.collapsed_slice_dims))
            offsets = list(map(int, numbers.offset_dims))
            mapped = tuple(map(int, numbers.start_index_map))
            batching = tuple(
                (int(a), int(b))
                for a, b in zip(
                    numbers.operand_batching_dims,
                    numbers.start_indices_batching_dims,
                    strict=True,
                )
            )
            fill = eqn.params["fill_value"]  # None unless the mode is to fill
        shared = [a for a, _ in batching]
        kept = [i for i in axes if i not in collapsed and i not in shared]
        return cls(
            sizes=sizes,
            cut=tuple(
                i
                for i in axes
                if i in collapsed or (sizes[i] != shape[i] and i not in shared)
            ),
            kept=tuple(zip(kept, offsets, strict=True)),
            batching=batching,
            spread=tuple(i for i in range(len(out_shape)) if i not in offsets),
            mapped=mapped,
            fill=fill,
            out_shape=out_shape,
        )

    def starts(self, indices: Sequence[jax.Array]) -> dict[int, jax.Array]:
        """The first index along every axis in `mapped`.

        Args:
          indices: The equation's operands after the first: scalars, one per axis, or
            one array ``[*index axes, len(mapped)]``; integers.

        Returns:
          ``[*index axes]`` for each of these axes.
        """
        if jnp.ndim(indices[0]):
            indices = [indices[0][..., i] for i in range(len(self.mapped))]
        wide = [i if i.dtype.itemsize >= 4 else i.astype(jnp.int32) for i in indices]
        return dict(zip(self.mapped, wide, strict=True))


def follow(origin: Origin, eqn: Any) -> Origin:
    """The origin of what a gather or dynamic slice takes out of a weight.

    Args:
      origin: Origin of the operand.
      eqn: The equation.

    Returns:
      The same leaf with the indexed axes among its stack axes; axes that the output
      has from the indices (tokens that picked an expert each) hold none of the leaf.

    Examples:
      >>> from jeff.program.origin import leaf
      >>> w, i = jnp.ones((5, 4, 3)), jnp.arange(2)
      >>> eqn = jax.make_jaxpr(lambda w, i: w.at[i].get(mode="clip"))(w, i).eqns[-1]
      >>> follow(leaf("w", w.shape), eqn).stack
      (0,)
    """
    if origin.derived or not origin.leaves:
        return origin.as_derived()
    at = Indexing.of(eqn)
    axes: list[tuple[Atom, ...]] = [
        () if n == 1 else (Atom(None, n),) for n in at.out_shape
    ]
    for axis, out in at.kept:
        if axis not in at.cut:
            axes[out] = origin.axes[axis]
    for axis, index_axis in at.batching:
        axes[at.spread[index_axis]] = origin.axes[axis]
    taken = tuple(a.axis for i in at.cut for a in origin.axes[i] if a.axis is not None)
    return dataclasses.replace(origin, axes=tuple(axes), stack=origin.stack + taken)


def take(
    eqn: Any, weight: base.StoredWeight, indices: Sequence[jax.Array]
) -> "base.StoredWeight | jax.Array | None":
    """The same gather or dynamic slice of a stored weight, the rest of it untouched.

    Args:
      eqn: The equation on the dense weight.
      weight: The stored weight, of the shape of the equation's first operand.
      indices: The equation's operands after the first.

    Returns:
      A stored weight that decodes to what the equation gives. Where the equation fills
      entries out of bounds, the entries taken, decoded and filled. ``None`` if the
      weight cannot be indexed along these axes.

    Examples:
      >>> from jeff.quantize import QuantConfig, quantize
      >>> experts = quantize(jnp.ones((5, 8, 4)), QuantConfig(bits=4, group_size=8))
      >>> def pick(w, i):
      ...     return w.at[i].get(mode="clip")
      >>> eqn = jax.make_jaxpr(pick)(experts.decode(), jnp.array([3, 1])).eqns[-1]
      >>> take(eqn, experts, [jnp.array([[3], [1]])])
      QTensor(float32[2, 8, 4], 4 bits, scales float32[2, 1, 4])
    """
    at = Indexing.of(eqn)
    shared = [axis for axis, _ in at.batching]
    windows = len(at.cut) > 1 and any(at.sizes[i] != 1 for i in at.cut)
    if not at.cut or not at.mapped or windows:
        return None
    if not all(map(weight.can_index, (*shared, *at.cut))):
        return None
    starts = at.starts(indices)
    rows = _rows(at, weight.shape, starts)
    # Batched axes lead; the indexed ones become one, in the place of the first.
    rest = [i for i in range(weight.ndim) if i not in at.cut and i not in shared]
    before = sum(i < at.cut[0] for i in rest)
    order = (*shared, *rest[:before], *at.cut, *rest[before:])
    moved = _transposed(weight, order)
    if moved is not None and len(at.cut) > 1:
        joined = math.prod(weight.shape[i] for i in at.cut)
        lead, tail = len(shared) + before, len(rest) - before
        new = (*moved.shape[:lead], joined, *moved.shape[moved.ndim - tail :])
        moved = moved.reshape(new)
    if moved is None:
        return None

    def pick(w, rows):
        return w.take(rows, before)

    for _ in shared:
        pick = jax.vmap(pick)
    first = [axis for _, axis in at.batching]
    others = [i for i in range(len(at.spread)) if i not in first]
    rows = lax.transpose(rows, (*first, *others, *range(len(at.spread), rows.ndim)))
    taken = pick(moved, rows)
    if taken is not None:
        place = dict(at.kept)
        axes = [at.spread[i] for i in first] + [place[i] for i in rest[:before]]
        axes += [at.spread[i] for i in others]
        axes += [place[i] for i in at.cut if at.sizes[i] != 1]
        axes += [place[i] for i in rest[before:]]
        taken = _placed(taken, axes, at.out_shape)
    if taken is None or at.fill is None:
        return taken
    ends = [weight.shape[a] - at.sizes[a] for a in starts]
    fits = [(i >= 0) & (i <= e) for i, e in zip(starts.values(), ends, strict=True)]
    inside = lax.broadcast_in_dim(jnp.stack(fits).all(0), at.out_shape, at.spread)
    dense = taken.decode()
    return jnp.where(inside, dense, jnp.asarray(at.fill, dense.dtype))


def _rows(at: Indexing, shape: Sequence[int], starts: dict[int, Any]) -> jax.Array:
    """Entries of the indexed axes laid end to end; an axis more if several are taken.

    ``[*index axes]`` or ``[*index axes, size]``.
    """
    rows, any_start = None, next(iter(starts.values()))
    for axis in at.cut:
        start = starts.get(axis, jnp.zeros_like(any_start))
        start = jnp.clip(start, 0, shape[axis] - at.sizes[axis])
        rows = start if rows is None else rows * shape[axis] + start
    assert rows is not None
    size = at.sizes[at.cut[0]]
    if size == 1:
        return rows
    return rows[..., None] + jnp.arange(size, dtype=rows.dtype)


def _placed(taken: Any, axes: Sequence[int], shape: tuple[int, ...]) -> Any:
    """What was taken with its axes at `axes` of the output, and those of size one."""
    taken = _transposed(taken, sorted(range(len(axes)), key=lambda i: axes[i]))
    if taken is None or tuple(taken.shape) == shape:
        return taken
    return taken.reshape(shape)


def _transposed(w: Any, permutation: Sequence[int]) -> Any:
    same = list(permutation) == list(range(w.ndim))
    return w if same else w.transpose(tuple(permutation))
