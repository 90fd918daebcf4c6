"""One flipped bit in an array: the fault of campaigns that inject one at a time."""

import jax
import jax.numpy as jnp

from jeff import faults
from jeff.faults.fixed_point import check_bits
from jeff.faults.stored_words import change

__all__ = ["flip_code", "flip_word"]


def flip_word(x: jax.Array, position: jax.Array, bit: jax.Array) -> jax.Array:
    """Flips one bit of one stored word.

    Args:
      x: Any shape, floating or integer of 4, 8, 16 or 32 bits.
      position: int32 ``[]``, in the flat array.
      bit: int32 ``[]``, 0 the lowest; below 0: nothing is flipped.

    Returns:
      The array; other elements, and their NaN payloads, are untouched.

    Examples:
      >>> print(jax.jit(flip_word)(jnp.array([1.0, 1.0]), 1, 31))
      [ 1. -1.]
    """
    one = jnp.array(1, jnp.uint32) << jnp.maximum(bit, 0).astype(jnp.uint32)
    mask = jnp.where(bit < 0, jnp.uint32(0), one)
    flat = x.reshape(-1)
    flipped = change(flat[position], lambda word: word ^ mask.astype(word.dtype))
    return flat.at[position].set(flipped).reshape(x.shape)


def flip_code(
    x: jax.Array, position: jax.Array, bit: jax.Array, *, bits: int
) -> jax.Array:
    """Flips one bit of the two's complement code of one element.

    The element is rounded to a code of the array's own fixed-point format, a bit of
    the code flips, and the element becomes what the code now stands for. The others
    stay as they are, so what changes is the fault alone; an infinity or NaN, which has
    no code, stays too, as in `jeff.faults.fixed_point_flip`::

        code = clip(round(x / step), -2^(bits-1), 2^(bits-1) - 1)
        x'   = step * (code with the bit flipped)

    Args:
      x: Any shape, floating.
      position: int32 ``[]``, in the flat array.
      bit: int32 ``[]``, 0 the lowest, ``bits - 1`` the sign.
      bits: Width of a code, 2 to 16.

    Returns:
      The array.

    Examples:
      >>> flip = jax.jit(flip_code, static_argnames="bits")
      >>> print(flip(jnp.array([1.0, 0.25]), 1, 7, bits=8))
      [ 1.   -0.75]

    References:
      The format: `jeff.faults.fixed_point_format`.
    """
    check_bits(bits)
    step = faults.fixed_point_format(x, bits=bits).step
    top = 1 << (bits - 1)
    flat = x.reshape(-1)
    old = flat[position]
    finite = jnp.isfinite(old)
    code = jnp.round(jnp.where(finite, old, 0).astype(jnp.float32) / step)
    code = jnp.clip(code, -top, top - 1).astype(jnp.int32)
    code = code ^ (jnp.int32(1) << bit)
    low = code & (2 * top - 1)  # the word of `bits` bits, then its sign again
    code = (low ^ top) - top
    flipped = (code.astype(jnp.float32) * step).astype(x.dtype)
    flipped = jnp.where(finite, flipped, old)
    return flat.at[position].set(flipped).reshape(x.shape)
