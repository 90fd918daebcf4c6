"""The kernel on sharded arrays: every device multiplies what it has.

XLA cannot look into a kernel and would gather its operands. `partitioned` tells it
what to do: sharded columns stay where they are; a sharded contraction is multiplied in
place and added up over the devices; rows of x, and matrices of a stack, may be sharded
as well.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from pallas_kernels.dequant_matmul.operand import Operand

__all__ = ["partitioned"]


def partitioned(
    multiply: Callable[[jax.Array, Operand, Any], jax.Array],
    x: jax.Array,
    w: Operand,
    out_dtype: Any,
) -> jax.Array:
    """``multiply(x, w, out_dtype)``, by each device on its own shards.

    A contraction stays sharded where every device has whole tiles of codes and whole
    groups, and columns where it has a multiple of 32; else they are gathered. Inside a
    `shard_map` over all axes of a mesh, arrays are shards already.

    Args:
      multiply: The product of unsharded arrays.
      x: ``[M, K]`` or ``[L, M, K]``.
      w: ``[K, N]`` or ``[L, K, N]``.
      out_dtype: Dtype of the result; devices add up in float32.

    Returns:
      ``[M, N]`` or ``[L, M, N]``.
    """
    mesh = jax.sharding.get_abstract_mesh()
    inside = bool(mesh.axis_names) and set(mesh.manual_axes) == set(mesh.axis_names)
    if len(jax.devices()) == 1 or inside:
        return multiply(x, w, out_dtype)
    leaves, tree = jax.tree.flatten(w)

    def local(dtype, x, *leaves):
        operand = jax.tree.unflatten(tree, leaves)
        return multiply(x, dataclasses.replace(operand, size=x.shape[-1]), dtype)

    def whole(x, *leaves):
        return local(out_dtype, x, *leaves)

    def infer(mesh, shapes, _):
        return NamedSharding(mesh, _axes(mesh, shapes, w).result())

    def partition(mesh, shapes, _):
        axes = _axes(mesh, shapes, w)

        def lowered(*arrays):
            if not axes.contraction:
                return local(out_dtype, *arrays)
            part = local(jnp.float32, *arrays)
            return lax.psum(part, axes.contraction).astype(out_dtype)

        arguments = tuple(
            NamedSharding(mesh, spec)
            for spec in (axes.x(), *(axes.weight(a.shape) for a in shapes[1:]))
        )
        return mesh, lowered, NamedSharding(mesh, axes.result()), arguments

    run = custom_partitioning(whole)
    stack = "l " if x.ndim == 3 else ""
    scales = [
        f"{stack}g{i} {'n' if a.shape[-1] == w.columns else f'o{i}'}"
        for i, a in enumerate(leaves[1:])
    ]
    operands = ", ".join([f"{stack}m k", f"{stack}p n", *scales])
    run.def_partition(
        partition=partition,
        infer_sharding_from_operands=infer,
        sharding_rule=f"{operands} -> {stack}m n",
    )
    return run(x, *leaves)


class _Axes(NamedTuple):
    """Names of mesh axes that shard each axis of a product."""

    stack: tuple[Any, ...]  # one entry for a stack, else none
    rows: Any
    contraction: Any
    columns: Any

    def x(self) -> PartitionSpec:
        return PartitionSpec(*self.stack, self.rows, self.contraction)

    def weight(self, shape: Sequence[int]) -> PartitionSpec:
        """Of the words, the scales or the zero points, where not of size 1."""
        along, across = shape[-2:]
        return PartitionSpec(
            *self.stack,
            self.contraction if along > 1 else None,
            self.columns if across > 1 else None,
        )

    def result(self) -> PartitionSpec:
        return PartitionSpec(*self.stack, self.rows, self.columns)


def _axes(mesh, shapes, w: Operand) -> _Axes:
    """How to cut a product whose operands are sharded somehow, no axis twice."""
    x, words = (_spec(a) for a in shapes[:2])
    taken: set[str] = set()

    def first(*names):
        for name in names:
            parts = set(name if isinstance(name, tuple) else (name,))
            if name is not None and not parts & taken:
                taken.update(parts)
                return name
        return None

    columns = words[-1]
    columns = first(
        columns if w.columns % (32 * _devices(mesh, columns)) == 0 else None
    )
    contraction = first(*(a for a in (words[-2], x[-1]) if _cuts_well(mesh, a, w)))
    stack = tuple(first(x[0], words[0]) for _ in range(len(x) - 2))
    return _Axes(stack, first(x[-2]), contraction, columns)


def _spec(a) -> tuple[Any, ...]:
    spec = tuple(a.sharding.spec)
    return (*spec, *(None for _ in range(len(a.shape) - len(spec))))


def _cuts_well(mesh, name, w: Operand) -> bool:
    """Whether each device of a mesh axis has whole tiles of codes and whole groups."""
    if name is None:
        return False
    count = _devices(mesh, name)
    whole = w.size % (count * w.tile) == 0
    return whole and (w.groups == 1 or w.groups % count == 0)


def _devices(mesh, name) -> int:
    """Devices along a mesh axis, along several, or along none."""
    if name is None:
        return 1
    parts = name if isinstance(name, tuple) else (name,)
    return math.prod(mesh.shape[part] for part in parts)
