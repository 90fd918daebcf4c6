"""Products of few rows with a packed matrix, its codes multiplied where they stand.

A scan over the tiles of the packed layout; in each, every slot is unpacked, decoded and
multiply-added in one elementwise expression of neighboring words. No weight is written
to memory, so a product reads 3 bits per weight instead of 32, which is what bounds it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import bits as layouts
from pallas_kernels.dequant_matmul import contraction
from pallas_kernels.dequant_matmul.operand import Operand, dequantize

__all__ = ["applies", "multiply"]

_COLUMNS = 4  # word columns unpacked together: wider ones fall out of registers


def multiply(
    x: jax.Array, w: Operand, *, decode_dtype: Any = jnp.float32, precision: Any = None
) -> jax.Array:
    """``x @ w`` in float32 for few rows of x.

    Args:
      x: ``[M, K]``, floating; the work grows with M, as codes are unpacked for each.
      w: ``[K, N]``, for which `applies`.
      decode_dtype: Dtype that the decoded weights are rounded to.
      precision: Of what is left after the last whole tile.

    Returns:
      ``[M, N]``, float32.
    """
    width = min(w.stride, _COLUMNS)
    group, tile = w.group_size, w.tile
    inside = max(tile // group, 1)  # groups that a tile touches
    count = w.size // tile
    words = w.words[: count * w.bits * w.stride]
    words = words.reshape(count, w.bits, w.stride, w.columns)
    parts = x[:, : count * tile].astype(jnp.float32)
    parts = parts.reshape(-1, count, 32, w.stride)

    def block(total, column, tile_inputs):
        part, words, scale, zero = tile_inputs
        at = column * width
        words = lax.dynamic_slice_in_dim(words, at, width, 1)
        part = lax.dynamic_slice_in_dim(part, at, width, 2)[..., None]
        for i in range(32):
            g = i * inside // 32
            weights = dequantize(
                layouts.slot(list(words), i, bits=w.bits),
                scale[g : g + 1],
                None if zero is None else zero[g : g + 1],
                bits=w.bits,
                dtype=decode_dtype,
            )
            total = total + part[:, i] * weights.astype(jnp.float32)
        return total, None

    def body(total, inputs):
        t, part, words = inputs
        scale, zero = (
            None
            if a is None
            else lax.dynamic_slice_in_dim(a, t * tile // group, inside, 0)
            for a in (w.scale, w.zero)
        )
        return lax.scan(
            lambda total, column: block(total, column, (part, words, scale, zero)),
            total,
            jnp.arange(w.stride // width),
        )

    total = jnp.repeat(contraction.start(x, w)[:, None], width, 1)
    inputs = (jnp.arange(count), jnp.moveaxis(parts, 1, 0), words)
    total, _ = lax.scan(body, total, inputs)
    total = total.sum(1)
    if count * tile == w.size:
        return total
    rest = w.rows(count * tile, w.size)
    last = x[:, count * tile :]
    return total + contraction.dot(last, rest.decode(decode_dtype), precision)


def applies(w: Operand) -> bool:
    """Whether `multiply` can: every slot of a tile must lie in one group.

    Args:
      w: ``[K, N]``. What is left of K after the last whole tile must be groups of
        its own.
    """
    group, tile = w.group_size, w.tile
    whole = w.size // tile * tile
    shared = w.groups == 1
    nested = shared or group % tile == 0 or tile % group == 0
    apart = shared or whole % group == 0
    return whole > 0 and nested and apart and (shared or group % w.stride == 0)
