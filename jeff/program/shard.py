"""Stored weights at the boundary of a ``shard_map``.

A stored weight enters sharded like the dense one it stands for if each device then
holds a whole number of packed words and scale groups: its arrays have the axes of the
dense weight, so the dense weight's partition fits them too.

References:
  ``jax.shard_map`` and partitions,
  https://docs.jax.dev/en/latest/notebooks/shard_map.html.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jeff import base

__all__ = ["stored_specs"]


def stored_specs(
    weight: base.StoredWeight, spec: PartitionSpec, sizes: Mapping[Any, int]
) -> Any | None:
    """Partitions of a stored weight's arrays that give each device its part.

    Args:
      weight: The stored weight.
      spec: How the dense weight is partitioned.
      sizes: Size of every mesh axis.

    Returns:
      A tree like `weight` with a `PartitionSpec` per array, or ``None`` if a boundary
      between devices would cut a packed word or a group.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jeff import quantize
      >>> w = quantize.quantize(jnp.ones((256, 8)), quantize.QuantConfig(bits=4,
      ...     group_size=64), stride=1)
      >>> tuple(stored_specs(w, PartitionSpec("i", None), {"i": 4}).packed)
      ('i', None)
      >>> stored_specs(w, PartitionSpec("i", None), {"i": 8}) is None
      True
    """
    leaves, treedef = jax.tree.flatten(weight)
    found: list[list[Any]] = [[None] * weight.ndim for _ in leaves]
    for axis, names in enumerate(spec):
        if names is None:
            continue
        every = names if isinstance(names, tuple) else (names,)
        shards = math.prod(sizes[n] for n in every)
        parts = _parts(weight, axis, shards)
        if parts is None:
            return None
        for i, leaf in enumerate(leaves):
            kept = {jax.tree.leaves(p)[i].shape[axis] for p in parts}
            whole = leaf.shape[axis]
            if kept == {whole // shards} and whole % shards == 0:
                found[i][axis] = names
            elif kept != {whole}:
                return None
    return treedef.unflatten([PartitionSpec(*axes) for axes in found])


def _parts(weight: base.StoredWeight, axis: int, shards: int) -> list[Any] | None:
    """The shapes of the weight's slices, if each is one and of the same kind."""
    size = weight.shape[axis]
    if size % shards:
        return None
    parts = []
    for j in range(shards):
        starts, limits = [0] * weight.ndim, list(weight.shape)
        starts[axis], limits[axis] = j * size // shards, (j + 1) * size // shards
        part = jax.eval_shape(lambda w, s=starts, e=limits: w.slice(s, e), weight)
        if jax.tree.structure(part) != jax.tree.structure(weight):
            return None
        parts.append(part)
    return parts
