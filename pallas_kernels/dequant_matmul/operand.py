"""The packed operand of a product: three arrays and how to read them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels import bits as layouts

__all__ = ["Operand", "dequantize", "repeat"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Operand:
    """A packed ``[K, N]`` matrix, or a stack of them, inside this package only.

    Attributes:
      words: uint32 ``[..., Kp * bits / 32, N]``, packed along K; Kp is K with the
        padding of the last tile.
      scale: ``[..., G, N]`` or ``[..., G, 1]``, floating; group g is the rows
        ``g * K / G`` to ``(g + 1) * K / G - 1``.
      zero: Of the shape of `scale`, or ``None`` for ``2^(bits - 1)``.
      bits: Static. Width of a code.
      stride: Static. S of the packed layout.
      size: Static. K.
    """

    words: jax.Array
    scale: jax.Array
    zero: jax.Array | None
    bits: int = dataclasses.field(metadata={"static": True})
    stride: int = dataclasses.field(metadata={"static": True})
    size: int = dataclasses.field(metadata={"static": True})

    @property
    def columns(self) -> int:
        """N."""
        return self.words.shape[-1]

    @property
    def groups(self) -> int:
        """G."""
        return self.scale.shape[-2]

    @property
    def group_size(self) -> int:
        """Rows that share a scale."""
        return self.size // self.groups

    @property
    def tile(self) -> int:
        """Codes in a tile of the packed layout."""
        return 32 * self.stride

    def rows(self, start: int, stop: int) -> "Operand":
        """Rows of the matrix: whole tiles of codes and whole groups.

        Args:
          start: First row, a multiple of the tile.
          stop: Behind the last row: a multiple of the tile, or K.

        Returns:
          The operand ``[stop - start, N]``.
        """
        last = -(-stop // self.tile) * self.tile
        words = slice(start * self.bits // 32, last * self.bits // 32)
        if self.groups == 1:
            part = slice(None)
        else:
            part = slice(start // self.group_size, stop // self.group_size)
        return dataclasses.replace(
            self,
            words=self.words[..., words, :],
            scale=self.scale[..., part, :],
            zero=None if self.zero is None else self.zero[..., part, :],
            size=stop - start,
        )

    def decode(self, dtype: Any) -> jax.Array:
        """The dense matrix.

        Args:
          dtype: Its dtype.

        Returns:
          ``[..., K, N]``.
        """
        codes = layouts.unpack(self.words, bits=self.bits, axis=-2, stride=self.stride)[
            ..., : self.size, :
        ]
        scale = repeat(self.scale, self.group_size)
        zero = None if self.zero is None else repeat(self.zero, self.group_size)
        return dequantize(codes, scale, zero, bits=self.bits, dtype=dtype)


def dequantize(
    codes: jax.Array,
    scale: jax.Array,
    zero: jax.Array | None,
    *,
    bits: int,
    dtype: Any,
) -> jax.Array:
    """``(codes - zero) * scale``, in float32, then rounded.

    Args:
      codes: Unsigned integers.
      scale: Broadcasts against `codes`.
      zero: Like `scale`; ``None`` for ``2^(bits - 1)``.
      bits: Width of a code.
      dtype: Of the result.

    Returns:
      Weights, of the shape of `codes`.

    Examples:
      >>> codes, scale = jnp.arange(4), jnp.float32(0.5)
      >>> print(dequantize(codes, scale, None, bits=2, dtype=jnp.float32))
      [-1.  -0.5  0.   0.5]
    """
    offset = 2.0 ** (bits - 1) if zero is None else zero.astype(jnp.float32)
    steps = codes.astype(jnp.float32) - offset
    return (steps * scale.astype(jnp.float32)).astype(dtype)


def repeat(a: jax.Array, count: int) -> jax.Array:
    """Rows, each `count` times; unlike `jax.numpy.repeat`, also on explicit meshes.

    Args:
      a: ``[..., G, N]``.
      count: How often.

    Returns:
      ``[..., G * count, N]``.

    Examples:
      >>> print(repeat(jnp.array([[1, 2], [3, 4]]), 2)[:, 0])
      [1 1 3 3]
    """
    *stack, groups, columns = a.shape
    wide = jnp.broadcast_to(a[..., None, :], (*stack, groups, count, columns))
    return wide.reshape(*stack, groups * count, columns)
