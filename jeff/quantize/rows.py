"""Products of a few rows with a packed weight, its codes multiplied where they stand.

A scan over the tiles of the packed layout; in each, every slot is unpacked, decoded and
multiply-added in one elementwise expression of neighboring words. No weight is written
to memory, so a product reads 3 bits per weight instead of 32, which is what bounds it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff.quantize import affine, tiles
from jeff.quantize.qtensor import QTensor
from pallas_kernels import bits as layouts

__all__ = ["applies", "multiply"]

_COLUMNS = 4  # word columns unpacked together: wider ones fall out of registers


def multiply(x: jax.Array, w: QTensor, *, precision: Any = None) -> jax.Array:
    """``x @ w`` in float32 for few rows of x.

    Args:
      x: ``[M, K]``, floating; the work grows with M, as codes are unpacked for each.
      w: ``[K, N]``, contracted over its first axis, for which `applies`.
      precision: Of what is left after the last whole tile.

    Returns:
      ``[M, N]``, float32.
    """
    size, columns = w.shape
    tile, width = 32 * w.stride, min(w.stride, _COLUMNS)
    group = size // w.scale.shape[0]
    inside = max(tile // group, 1)  # groups that a tile touches
    count = size // tile
    rest = w.slice((count * tile, 0), w.shape) if count * tile < size else None
    packed = w.packed[: count * w.bits * w.stride]
    packed = packed.reshape(count, w.bits, w.stride, columns)
    last, parts = x[:, count * tile :], x[:, : count * tile].astype(jnp.float32)
    parts = parts.reshape(-1, count, 32, w.stride)

    def block(total, column, tile_inputs):
        part, words, scale, zero = tile_inputs
        at = column * width
        words = lax.dynamic_slice_in_dim(words, at, width, 1)
        part = lax.dynamic_slice_in_dim(part, at, width, 2)[..., None]
        for i in range(32):
            codes = layouts.slot(list(words), i, bits=w.bits)
            g = i * inside // 32
            weights = affine.decode(
                codes,
                scale[g : g + 1],
                None if zero is None else zero[g : g + 1],
                bits=w.bits,
                dtype=w.dtype,
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

    total = jnp.repeat(tiles.start(x, w)[:, None], width, 1)
    inputs = (jnp.arange(count), jnp.moveaxis(parts, 1, 0), packed)
    total, _ = lax.scan(body, total, inputs)
    total = total.sum(1)
    return total if rest is None else total + tiles.dot(last, rest.decode(), precision)


def applies(w: QTensor) -> bool:
    """Whether `multiply` can: every slot of a tile must lie in one group.

    Args:
      w: ``[K, N]``. What is left of K after the last whole tile must be groups of
        its own.
    """
    group, tile = w.shape[0] // w.scale.shape[0], 32 * w.stride
    whole = w.shape[0] // tile * tile
    shared = w.scale.shape[0] == 1
    nested = shared or group % tile == 0 or tile % group == 0
    apart = shared or whole % group == 0
    return whole > 0 and nested and apart and (shared or group % w.stride == 0)
