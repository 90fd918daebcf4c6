"""Packed codes to floats in registers, by as few instructions as there are.

A code that is or-ed into the mantissa of a power of two is a float already, the power
plus the code. Both codes of a pair are raised at once, and a multiply-add takes the
power away together with the zero point.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import bits as layouts

__all__ = ["Mantissa", "mantissa_for", "pattern", "raised_codes"]


class Mantissa(NamedTuple):
    """Where codes become floats: or-ed into a power of two whose last place is 1.

    Attributes:
      dtype: Of the floats.
      power: The power of two.
      pattern: Its bits.
      room: Bits of a mantissa.
    """

    dtype: Any
    power: float
    pattern: int
    room: int

    @property
    def pairs(self) -> bool:
        """Whether both codes of a pair become floats where they are."""
        return self.dtype.itemsize == 2


def mantissa_for(dtype: Any, bits: int) -> Mantissa:
    """That of `dtype`, or float32's for codes longer than the 7 bits of bfloat16.

    Args:
      dtype: Of x, bfloat16 or float16.
      bits: Width of a code.

    Returns:
      Where codes of that width become floats.
    """
    if dtype == jnp.float16:
        return Mantissa(jnp.dtype(jnp.float16), 1024.0, 0x6400, 10)
    if bits <= 7:
        return Mantissa(jnp.dtype(jnp.bfloat16), 128.0, 0x4300, 7)
    return Mantissa(jnp.dtype(jnp.float32), 2.0**23, 0x4B000000, 23)


def pattern(dtype: Any, bits: int) -> jax.Array:
    """The bits that make a float of a code, as an array that the compiler cannot see.

    An instruction holds one constant; with this one in a register, masking a code and
    raising it are a single instruction.

    Args:
      dtype: Of x.
      bits: Width of a code.

    Returns:
      uint32 ``[1]``.
    """
    mantissa = mantissa_for(dtype, bits)
    repeated = mantissa.pattern * (0x10001 if mantissa.pairs else 1)
    return jnp.full((1,), repeated, jnp.uint32)


def raised_codes(
    words: Sequence[jax.Array], mantissa: Mantissa, raising: jax.Array
) -> list[tuple[jax.Array, int]]:
    """The 32 slots of a tile as ``power + code * 2**lift``, and their lifts.

    Where the mantissa has room above a code, the code stays where it is in its word
    (the lift), which saves a shift.

    Args:
      words: The word rows of a tile, uint32 ``[64, 16]`` each.
      mantissa: Where codes become floats.
      raising: `pattern`, a scalar.

    Returns:
      Arrays of the mantissa's dtype, of the shape of a row, each with its lift.
    """
    bits, kind = len(words), mantissa.dtype
    room = mantissa.room if mantissa.pairs else bits
    lifts = [layouts.pair_lift(i, bits=bits, room=room) for i in range(16)]
    both = [
        layouts.pair(words, i, bits=bits, lift=lift) for i, lift in enumerate(lifts)
    ]
    if mantissa.pairs:
        both = [pair | raising for pair in both]
    codes = []
    for slot in range(32):
        index, half = layouts.slot_pair(slot, bits=bits)
        pair = both[index]
        if mantissa.pairs:
            code = (pair >> jnp.uint32(16) if half else pair).astype(jnp.uint16)
        else:
            code = pair >> jnp.uint32(16) if half else pair & jnp.uint32(0xFFFF)
            code = code | raising
        codes.append((lax.bitcast_convert_type(code, kind), lifts[index]))
    return codes
