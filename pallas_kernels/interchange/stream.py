"""Codes in order, lowest bit first: what the layouts of other libraries have in common.

Code ``k`` of a *dense* stream takes the bits ``k * bits`` to ``(k + 1) * bits - 1``,
counted from the lowest bit of word 0, and may straddle two words. A *padded* stream
starts a new word rather than that, and leaves the ``32 % bits`` highest bits of every
word 0. The two are the same for 2, 4 and 8 bits. For 3::

    bit       31 30 | 29 27  26 24  ...   8 6   5 3   2 0
    dense     10    |   9      8            2     1     0     code 10 goes on in word 1
    padded     0  0 |   9      8            2     1     0     code 10 starts word 1
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["length", "pack", "unpack"]


def length(size: int, *, bits: int, padded: bool = False) -> int:
    """Words of a stream.

    Args:
      size: Number of codes.
      bits: Width of a code, 1 to 8.
      padded: Whether no code straddles two words.

    Returns:
      Number of 32-bit words.

    Examples:
      >>> length(320, bits=3), length(320, bits=3, padded=True)
      (30, 32)
    """
    run, words = _run(bits, padded)
    return math.ceil(size / run) if padded else math.ceil(size * words / run)


@functools.partial(jax.jit, static_argnames=("bits", "axis", "padded"))
def pack(codes: jax.Array, *, bits: int, axis: int, padded: bool = False) -> jax.Array:
    """Packs codes along one axis.

    Args:
      codes: uint8, any shape; only the low `bits` bits of each are kept.
      bits: Width of a code, 1 to 8.
      axis: The packed axis.
      padded: Whether no code straddles two words.

    Returns:
      uint32 of the shape of `codes`, with `axis` of size `length`.

    Examples:
      >>> codes = jnp.arange(11, dtype=jnp.uint8) % 8
      >>> [f"{int(w):011o}" for w in pack(codes, bits=3, axis=0)]
      ['21076543210', '00000000000']
    """
    axis %= codes.ndim
    size = codes.shape[axis]
    before, after = codes.shape[:axis], codes.shape[axis + 1 :]
    run, words = _run(bits, padded)
    unit, per_code, per_word = _units(bits)
    codes = _pad(codes, axis, -size % run)
    tiles = codes.shape[axis] // run
    codes = codes.reshape(*before, tiles * run, 1, *after)
    pieces = (codes >> _shifts(unit, per_code, axis + 1, codes)) & (2**unit - 1)
    pieces = pieces.reshape(*before, tiles, run * per_code, *after)
    pieces = _pad(pieces, axis + 1, words * per_word - run * per_code)
    pieces = pieces.reshape(*before, tiles * words, per_word, *after)
    pieces = pieces.astype(jnp.uint32)
    pieces = pieces << _shifts(unit, per_word, axis + 1, pieces)
    packed = jnp.sum(pieces, axis=axis + 1, dtype=jnp.uint32)  # disjoint: sum is or
    return lax.slice_in_dim(
        packed, 0, length(size, bits=bits, padded=padded), axis=axis
    )


@functools.partial(jax.jit, static_argnames=("bits", "axis", "size", "padded"))
def unpack(
    words: jax.Array, *, bits: int, axis: int, size: int, padded: bool = False
) -> jax.Array:
    """Inverse of `pack`.

    Args:
      words: uint32, any shape, with `axis` of size ``length(size)``.
      bits: Width of a code, 1 to 8.
      axis: The packed axis.
      size: Number of codes.
      padded: Whether no code straddles two words.

    Returns:
      uint8 of the shape of `words`, with `axis` of size `size`.

    Examples:
      >>> print(unpack(jnp.array([0o7654321], jnp.uint32), bits=3, axis=0, size=8))
      [1 2 3 4 5 6 7 0]
    """
    axis %= words.ndim
    before, after = words.shape[:axis], words.shape[axis + 1 :]
    run, per_run = _run(bits, padded)
    unit, per_code, per_word = _units(bits)
    words = _pad(words, axis, -words.shape[axis] % per_run)
    tiles = words.shape[axis] // per_run
    words = words.reshape(*before, tiles * per_run, 1, *after)
    pieces = (words >> _shifts(unit, per_word, axis + 1, words)) & (2**unit - 1)
    pieces = pieces.astype(jnp.uint8)
    pieces = pieces.reshape(*before, tiles, per_run * per_word, *after)
    pieces = lax.slice_in_dim(pieces, 0, run * per_code, axis=axis + 1)
    pieces = pieces.reshape(*before, tiles * run, per_code, *after)
    pieces = pieces << _shifts(unit, per_code, axis + 1, pieces)
    codes = jnp.sum(pieces, axis=axis + 1, dtype=jnp.uint8)
    return lax.slice_in_dim(codes, 0, size, axis=axis)


def _run(bits: int, padded: bool) -> tuple[int, int]:
    """Codes that start and end with a word, and the number of those words."""
    return (32 // bits, 1) if padded else (32, bits)


def _units(bits: int) -> tuple[int, int, int]:
    """Largest piece that words and codes are made of; pieces per code, per word."""
    unit = math.gcd(bits, 32)
    return unit, bits // unit, 32 // unit


def _shifts(unit: int, count: int, axis: int, like: jax.Array) -> np.ndarray:
    """0, unit, 2 * unit ... along one axis, of the rank and dtype of `like`."""
    shape = [1] * like.ndim
    shape[axis] = count
    return (unit * np.arange(count)).astype(like.dtype).reshape(shape)


def _pad(x: jax.Array, axis: int, count: int) -> jax.Array:
    """`x` with zeros behind its end along an axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, count)
    return jnp.pad(x, widths) if count else x
