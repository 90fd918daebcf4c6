"""The "GEMM" layout of AutoAWQ: 4 bits, packed along the outputs in a shuffled order.

Nibble i of a word, counted from its lowest bits, holds output 0, 2, 4, 6, 1, 3, 5, 7 of
eight neighbors::

    bit      31 28  27 24  23 20  19 16  15 12  11  8   7  4   3  0
    output     7      5      3      1      6      4      2      0

References:
  AutoAWQ, github casper-hansen/AutoAWQ 0.2.9, awq/modules/linear/gemm.py and
  awq/utils/packing_utils.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.interchange import stream
from pallas_kernels.interchange.codes import (
    Codes,
    as_codes,
    as_scale,
    as_words,
    signed_words,
)

__all__ = ["AutoAWQ", "from_autoawq", "to_autoawq"]

_BITS, _PER_WORD = 4, 8


class AutoAWQ(NamedTuple):
    """A linear layer as AutoAWQ stores it; names as in its files.

    Attributes:
      qweight: int32 ``[K, N / 8]``.
      qzeros: int32 ``[G, N / 8]``.
      scales: float16 ``[G, N]``.
    """

    qweight: jax.Array
    qzeros: jax.Array
    scales: jax.Array


def from_autoawq(weight: AutoAWQ) -> Codes:
    """Reads AutoAWQ's layout.

    Args:
      weight: Words int32 or uint32; `scales` float16, bfloat16 or float32.

    Returns:
      The codes, `zero` always an array, no `order`.

    Raises:
      TypeError: If words or scales are of another dtype.
      ValueError: If the shapes do not fit each other.

    Examples:
      >>> word = jnp.array([[0x75316420]], jnp.uint32)
      >>> weight = AutoAWQ(word, word, jnp.ones((1, 8), jnp.float16))
      >>> print(from_autoawq(weight).codes)
      [[0 1 2 3 4 5 6 7]]
    """
    qweight = as_words(weight.qweight, "qweight")
    size, columns = qweight.shape[0], _PER_WORD * qweight.shape[1]
    scale = as_scale(weight.scales, "scales", "the codes", (size, columns))
    expected = (scale.shape[0], qweight.shape[1])
    qzeros = as_words(weight.qzeros, "qzeros", expected)
    return Codes(_unpack(qweight), scale, _unpack(qzeros))


def to_autoawq(weight: Codes) -> AutoAWQ:
    """Writes AutoAWQ's layout.

    Args:
      weight: Codes of 4 bits, N a multiple of 8, scales float16, without `order`.

    Returns:
      The words, int32, and the scales unchanged.

    Raises:
      TypeError: If `codes` or `zero` is not uint8, or `scale` not float16: rounding it
        is left to the caller.
      ValueError: If the shapes do not fit each other, N is not a multiple of 8, or
        there is an `order`, which this layout cannot keep.

    Examples:
      >>> codes = jnp.arange(8, dtype=jnp.uint8).reshape(1, 8)
      >>> packed = to_autoawq(Codes(codes, jnp.ones((1, 8), jnp.float16)))
      >>> [f"{int(w[0, 0]) % 2**32:x}" for w in (packed.qweight, packed.qzeros)]
      ['75316420', '88888888']
    """
    codes, scale, zero, order = as_codes(weight, _BITS)
    if order is not None:
        raise ValueError("AutoAWQ's layout keeps no order of inputs, but there is one")
    if scale.dtype != jnp.float16:
        raise TypeError(f"scale must be float16 in this layout, got {scale.dtype}")
    if codes.shape[1] % _PER_WORD:
        raise ValueError(
            f"N must be a multiple of {_PER_WORD}, got codes of shape {codes.shape}"
        )
    if zero is None:
        zero = jnp.full(scale.shape, 2 ** (_BITS - 1), jnp.uint8)
    return AutoAWQ(_pack(codes), _pack(zero), scale)


def _pack(codes: jax.Array) -> jax.Array:
    """int32 words of uint8 ``[rows, N]``: even outputs, then odd ones."""
    pairs = codes.reshape(codes.shape[0], -1, _PER_WORD // 2, 2)
    shuffled = pairs.swapaxes(2, 3).reshape(codes.shape)
    return signed_words(stream.pack(shuffled, bits=_BITS, axis=1))


def _unpack(words: jax.Array) -> jax.Array:
    """Inverse of `_pack`."""
    shape = words.shape[0], _PER_WORD * words.shape[1]
    shuffled = stream.unpack(words, bits=_BITS, axis=1, size=shape[1])
    halves = shuffled.reshape(shape[0], -1, 2, _PER_WORD // 2)
    return halves.swapaxes(2, 3).reshape(shape)
