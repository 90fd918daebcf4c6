"""Products with a packed matrix in plain XLA that never hold more than a tile dense.

Two forms: `tiled` decodes a tile of weights and multiplies it, in a scan; `in_place`,
for few rows of x, multiplies codes where they stand (`in_place.py`).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import contraction, in_place
from pallas_kernels.dequant_matmul.operand import Operand, dequantize, repeat

__all__ = ["FEW_ROWS", "TILE", "multiply", "tiled"]

TILE = 2**20
"""Weights decoded at a time unless the caller says otherwise."""

FEW_ROWS = 4
"""Rows of x up to which multiplying in place beats decoding to a tile."""

_LANES = 128  # columns are cut in multiples of this


def multiply(
    x: jax.Array,
    w: Operand,
    *,
    tile: int | None = None,
    decode_dtype: Any = jnp.float32,
    precision: Any = None,
) -> jax.Array:
    """``x @ w`` in float32, by the form that is faster on a CPU.

    Args:
      x: ``[M, K]``, floating, or a stack ``[L, M, K]``.
      w: ``[K, N]``, or a stack ``[L, K, N]``, of which one is multiplied at a time.
      tile: Weights to decode at a time; ``None`` takes `TILE`, and multiplies in place
        where `x` has at most `FEW_ROWS` rows.
      decode_dtype: Dtype that the decoded weights are rounded to.
      precision: Of the products of tiles, as in `jax.numpy.matmul`.

    Returns:
      ``[M, N]`` or ``[L, M, N]``, float32.
    """
    options = {"decode_dtype": decode_dtype, "precision": precision}
    if x.ndim == 3:
        return lax.map(lambda pair: multiply(*pair, tile=tile, **options), (x, w))
    few = 1 <= x.shape[0] <= FEW_ROWS and tile is None
    if few and in_place.applies(w) and not contraction.is_sharded(x, w):
        return in_place.multiply(x, w, **options)
    return tiled(x, w, tile=TILE if tile is None else tile, **options)


def tiled(
    x: jax.Array,
    w: Operand,
    *,
    tile: int = TILE,
    decode_dtype: Any = jnp.float32,
    precision: Any = None,
) -> jax.Array:
    """``x @ w`` in float32, decoding a tile at a time.

    Tiles are whole groups and whole tiles of codes. Columns are cut too where one row
    of tiles would be wider than `tile`.

    Args:
      x: ``[M, K]``, floating, or a stack ``[L, M, K]``.
      w: ``[K, N]``, or a stack ``[L, K, N]``.
      tile: Weights decoded at a time, at least one group and one tile of codes of up
        to 128 columns.
      decode_dtype: Dtype that the decoded weights are rounded to.
      precision: Of the products, as in `jax.numpy.matmul`.

    Returns:
      ``[M, N]`` or ``[L, M, N]``, float32.
    """
    if 0 in (*x.shape, *w.words.shape):
        return jnp.zeros((*x.shape[:-1], w.columns), jnp.float32)
    options = {"tile": tile, "decode_dtype": decode_dtype, "precision": precision}
    if x.ndim == 3:
        return lax.map(lambda pair: tiled(*pair, **options), (x, w))
    if contraction.is_sharded(x, w):
        return contraction.dot(x, w.decode(decode_dtype), precision)
    unit = w.tile if w.groups == 1 else math.lcm(w.tile, w.group_size)
    if (
        unit * w.columns > tile
        and w.columns > _LANES
        and not contraction.sharded(w.words, 1)
    ):
        wide = max(tile // unit // _LANES, 1) * _LANES
        return _by_columns(x, w, wide, tile, decode_dtype, precision)
    step = unit * max(tile // (unit * w.columns), 1)
    steps = w.size // step
    if steps < 2:
        return contraction.dot(x, w.decode(decode_dtype), precision)

    def stacked(a, rows):
        if a is None or a.shape[0] == 1:
            return None if a is None else jnp.broadcast_to(a, (steps, *a.shape))
        return a[: steps * rows].reshape(steps, rows, a.shape[1])

    stack = dataclasses.replace(
        w,
        words=stacked(w.words, step * w.bits // 32),
        scale=stacked(w.scale, step * w.groups // w.size),
        zero=stacked(w.zero, step * w.groups // w.size),
        size=step,
    )
    parts = x[:, : steps * step].reshape(-1, steps, step)

    @jax.checkpoint  # a derivative decodes the tile again instead of keeping it
    def body(total, inputs):
        part, weights = inputs
        return total + _one(part, weights, decode_dtype, precision), None

    inputs = (jnp.moveaxis(parts, 1, 0), stack)
    total, _ = lax.scan(body, contraction.start(x, w), inputs)
    if steps * step < w.size:
        rest = w.rows(steps * step, w.size)
        last = x[:, steps * step :]
        total = total + contraction.dot(last, rest.decode(decode_dtype), precision)
    return total


def _by_columns(x, w, wide, tile, decode_dtype, precision) -> jax.Array:
    """Tiles of a weight so wide that its columns are cut as well."""
    count = w.columns // wide
    options = {"tile": tile, "decode_dtype": decode_dtype, "precision": precision}

    def part(start, size):
        return jax.tree.map(
            lambda a: (
                lax.dynamic_slice_in_dim(a, start, size, 1) if a.shape[1] > 1 else a
            ),
            w,
        )

    def body(_, i):
        return None, tiled(x, part(i * wide, wide), **options)

    _, y = lax.scan(body, None, jnp.arange(count))
    y = jnp.moveaxis(y, 0, 1).reshape(x.shape[0], count * wide)
    if count * wide == w.columns:
        return y
    last = tiled(x, part(count * wide, w.columns - count * wide), **options)
    return jnp.concatenate([y, last], 1)


def _one(x: jax.Array, w: Operand, decode_dtype, precision) -> jax.Array:
    """One tile, unpacked in the order of its slots, which needs no concatenation."""
    x = x.reshape(x.shape[0], -1, 32, w.stride)
    scale = _by_slot(w.scale, w)
    zero = None if w.zero is None else _by_slot(w.zero, w)
    products, first = [], 0
    for codes in layouts.unpack_slots(w.words, bits=w.bits, axis=0, stride=w.stride):
        part = slice(first, first + codes.shape[1])
        tile = dequantize(
            codes,
            _slots(scale, part),
            None if zero is None else _slots(zero, part),
            bits=w.bits,
            dtype=decode_dtype,
        )
        products.append(
            contraction.dot(
                x[:, :, part].reshape(x.shape[0], -1),
                tile.reshape(-1, tile.shape[-1]),
                precision,
            )
        )
        first = part.stop
    return sum(products[1:], products[0])


def _by_slot(a: jax.Array, w: Operand) -> jax.Array:
    """Values per group laid out like the slots of a tile, size 1 if there is one."""
    if a.shape[0] == 1:
        return a[None, None]
    return repeat(a, w.group_size).reshape(-1, 32, w.stride, a.shape[1])


def _slots(a: jax.Array, part: slice) -> jax.Array:
    return a if a.shape[1] == 1 else a[:, part]
