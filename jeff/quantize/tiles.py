"""Products with a packed weight, tile by tile: decode one, multiply, forget it.

Tiles are whole groups and whole tiles of codes, about 4 MB of float32. Columns are cut
too where one row of tiles would be wider than that.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff.quantize import affine, groups
from jeff.quantize.qtensor import QTensor
from pallas_kernels import bits as layouts

__all__ = ["TILE", "contraction_is_sharded", "dot", "multiply", "start"]

TILE = 2**20
"""Weights decoded at a time unless the caller says otherwise."""

_LANES = 128  # columns are cut in multiples of this


def multiply(
    x: jax.Array, w: QTensor, *, tile: int = TILE, precision: Any = None
) -> jax.Array:
    """``x @ w`` in float32, decoding a tile at a time.

    Args:
      x: ``[M, K]``, floating.
      w: ``[K, N]``, contracted over its first axis.
      tile: Weights decoded at a time, at least one group and one tile of codes of up
        to 128 columns.
      precision: Of the products, as in `jax.numpy.matmul`.

    Returns:
      ``[M, N]``, float32.
    """
    if contraction_is_sharded(x, w):
        return dot(x, w.decode(), precision)
    (size, columns), count = w.shape, w.scale.shape[0]
    unit = 32 * w.stride
    if count > 1:
        unit = math.lcm(unit, size // count)
    if columns > _LANES and unit * columns > tile and not _sharded(w.packed, 1):
        wide = max(tile // unit // _LANES, 1) * _LANES
        return _by_columns(x, w, wide, tile, precision)
    step = unit * max(tile // (unit * columns), 1)
    steps = size // step
    if steps < 2:
        return dot(x, w.decode(), precision)
    last = w.slice((steps * step, 0), w.shape) if steps * step < size else None

    def stacked(a, rows):
        if a is None or a.shape[0] == 1:
            return None if a is None else jnp.broadcast_to(a, (steps, *a.shape))
        return a[: steps * rows].reshape(steps, rows, a.shape[1])

    stack = dataclasses.replace(
        w,
        packed=stacked(w.packed, step * w.bits // 32),
        scale=stacked(w.scale, step * count // size),
        zero=stacked(w.zero, step * count // size),
        pad=0,
    )
    parts = x[:, : steps * step].reshape(-1, steps, step)

    @jax.checkpoint  # a derivative decodes the tile again instead of keeping it
    def body(total, inputs):
        part, weights = inputs
        return total + _one(part, weights, precision), None

    total, _ = lax.scan(body, start(x, w), (jnp.moveaxis(parts, 1, 0), stack))
    if last is not None:
        total = total + dot(x[:, steps * step :], last.decode(), precision)
    return total


def start(x: jax.Array, w: QTensor) -> jax.Array:
    """What sums ``[M, N]`` start from: 0, with the shards of the operands in its type.

    Inside `shard_map`, or on a mesh of explicit axes, a plain 0 has another type than
    the sum it becomes. The values that lend the type are never looked at.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.

    Returns:
      Zeros, ``[M, N]``, float32.
    """
    like = x[:, :1].astype(jnp.float32)
    for a in jax.tree.leaves(w):
        like = like + a[:1].astype(jnp.float32)
    return jnp.where(False, like, 0.0)


def dot(x: jax.Array, w: jax.Array, precision: Any = None) -> jax.Array:
    """A dense product summed in float32.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.
      precision: As in `jax.numpy.matmul`.

    Returns:
      ``[M, N]``, float32.
    """
    if x.dtype != w.dtype:
        x, w = x.astype(jnp.float32), w.astype(jnp.float32)
    return jnp.matmul(x, w, precision=precision, preferred_element_type=jnp.float32)


def contraction_is_sharded(x: jax.Array, w: QTensor) -> bool:
    """Whether K is sharded in the arrays' types, as on meshes of explicit axes.

    JAX refuses to scan over such an axis; every device then decodes its own part.

    Args:
      x: ``[M, K]``.
      w: ``[K, N]``.
    """
    return _sharded(x, 1) or _sharded(w.packed, 0)


def _sharded(a: jax.Array, axis: int) -> bool:
    return jax.typeof(a).sharding.spec[axis] is not None


def _by_columns(x, w, wide, tile, precision) -> jax.Array:
    """Tiles of a weight so wide that its columns are cut as well."""
    count = w.shape[1] // wide

    def body(_, i):
        part = jax.tree.map(
            lambda a: (
                lax.dynamic_slice_in_dim(a, i * wide, wide, 1) if a.shape[1] > 1 else a
            ),
            w,
        )
        return None, multiply(x, part, tile=tile, precision=precision)

    _, y = lax.scan(body, None, jnp.arange(count))
    y = jnp.moveaxis(y, 0, 1).reshape(x.shape[0], count * wide)
    if count * wide == w.shape[1]:
        return y
    rest = w.slice((0, count * wide), w.shape)
    last = multiply(x, rest, tile=tile, precision=precision)
    return jnp.concatenate([y, last], 1)


def _one(x: jax.Array, w: QTensor, precision) -> jax.Array:
    """One tile, unpacked in the order of its slots, which needs no concatenation."""
    x = x.reshape(x.shape[0], -1, 32, w.stride)
    scale = _by_slot(w.scale, w)
    zero = None if w.zero is None else _by_slot(w.zero, w)
    products, first = [], 0
    for codes in layouts.unpack_slots(w.packed, bits=w.bits, axis=0, stride=w.stride):
        part = slice(first, first + codes.shape[1])
        tile = affine.decode(
            codes,
            _slots(scale, part),
            None if zero is None else _slots(zero, part),
            bits=w.bits,
            dtype=w.dtype,
        )
        products.append(
            dot(
                x[:, :, part].reshape(x.shape[0], -1),
                tile.reshape(-1, tile.shape[-1]),
                precision,
            )
        )
        first = part.stop
    return sum(products[1:], products[0])


def _by_slot(a: jax.Array, w: QTensor) -> jax.Array:
    """Values per group laid out like the slots of a tile, size 1 if there is one."""
    wide = groups.spread(a, w.shape)
    if wide.shape[0] == 1:
        return wide[None, None]
    return wide.reshape(-1, 32, w.stride, wide.shape[1])


def _slots(a: jax.Array, part: slice) -> jax.Array:
    return a if a.shape[1] == 1 else a[:, part]
