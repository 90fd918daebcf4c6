"""The K-strided layouts of `pallas_kernels.bits`, which the kernels here read."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import bits as layouts
from pallas_kernels.interchange.codes import Codes, as_codes

__all__ = ["Strided", "from_strided", "to_strided"]

# Compiled, or every step would hold four bytes per code.
_compile = functools.partial(jax.jit, static_argnames=("bits", "axis", "stride"))
_pack, _unpack = _compile(layouts.pack), _compile(layouts.unpack)


class Strided(NamedTuple):
    """A quantized matrix as the kernels here read it.

    Attributes:
      packed: uint32 ``[Kp * bits / 32, N]``; Kp is K with the padding of the last tile.
      scale: Floating ``[G, N]``.
      zero: uint8 ``[G, N]``, or ``None`` for ``2^(bits - 1)``.
      order: int32 ``[K]``, a permutation of the inputs, or ``None``: see `Codes`.
    """

    packed: jax.Array
    scale: jax.Array
    zero: jax.Array | None = None
    order: jax.Array | None = None


def to_strided(weight: Codes, *, bits: int, stride: int | None = None) -> Strided:
    """Packs codes for the kernels here.

    Args:
      weight: Codes of any K and N; codes 0 are added up to a whole tile.
      bits: Width of a code: 2, 3, 4 or 8.
      stride: S of the layout; ``None`` takes the largest that needs no more padding
        than a multiple of 32.

    Returns:
      The packed words; all else unchanged.

    Raises:
      TypeError: If `codes` or `zero` is not uint8, or `scale` of another dtype.
      ValueError: If the shapes do not fit each other, or `bits` or `stride` has no
        layout.

    Examples:
      >>> codes = Codes(jnp.ones((80, 4), jnp.uint8), jnp.ones((1, 4), jnp.float32))
      >>> to_strided(codes, bits=3).packed.shape
      (9, 4)
    """
    codes, scale, zero, order = as_codes(weight, bits)
    size = codes.shape[0]
    if stride is None:
        stride = layouts.default_stride(size + -size % 32)
    codes = jnp.pad(codes, ((0, -size % (32 * stride)), (0, 0)))
    packed = _pack(codes, bits=bits, axis=0, stride=stride)
    return Strided(packed, scale, zero, order)


def from_strided(
    weight: Strided, *, bits: int, stride: int, size: int | None = None
) -> Codes:
    """Inverse of `to_strided`.

    Args:
      weight: `packed` uint32.
      bits: Width of a code: 2, 3, 4 or 8.
      stride: S of the layout.
      size: K; ``None`` if the last tile is full.

    Returns:
      The codes; all else unchanged.

    Raises:
      TypeError: If an array is of another dtype.
      ValueError: If the shapes do not fit each other, or `bits` or `stride` has no
        layout.

    Examples:
      >>> packed = Strided(jnp.zeros((9, 4), jnp.uint32), jnp.ones((1, 4)))
      >>> from_strided(packed, bits=3, stride=1, size=80).codes.shape
      (80, 4)
    """
    codes = _unpack(weight.packed, bits=bits, axis=0, stride=stride)
    rows = codes.shape[0]
    size = rows if size is None else size
    if not 0 <= rows - size < 32 * stride:
        raise ValueError(
            f"packed of shape {weight.packed.shape} holds {rows} rows in tiles of "
            f"{32 * stride}, which is not what size {size} needs"
        )
    return as_codes(Codes(codes[:size], weight.scale, weight.zero, weight.order))
