"""Arrays as the words they are stored in: the bits of every dtype, exactly.

Float32, bfloat16, float16, the float8 formats and integers of 4 to 32 bits. Changing
bits of a floating word may make it NaN or infinite; `guard` says what becomes of those.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jeff.faults.magnitude import largest_magnitude

__all__ = ["NONFINITE", "change", "differ", "guard", "stored_bits"]

NONFINITE = ("keep", "zero", "clamp")
"""What may become of NaN and infinity that a fault has made."""


def stored_bits(like: Any) -> int:
    """Number of bits of a stored word.

    Args:
      like: An array of a floating or integer dtype of 4, 8, 16 or 32 bits, or its shape
        and dtype; `jeff.faults.Codes` store fewer bits than their dtype has.

    Returns:
      The number.

    Raises:
      TypeError: If the dtype is bool, complex, or of another width.

    Examples:
      >>> stored_bits(jnp.zeros(1, jnp.bfloat16)), stored_bits(jnp.zeros(1, jnp.int4))
      (16, 4)
    """
    own = getattr(like, "bits", None)
    if isinstance(own, int):
        return own
    return _width(like.dtype)


def change(x: jax.Array, word: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`x` with its words changed.

    Args:
      x: Of a dtype that `stored_bits` takes.
      word: Takes the words, uint8, uint16 or uint32 of the shape of `x` (4-bit words in
        the low bits of a uint8), and gives new ones.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: If the dtype has no words.

    Examples:
      >>> print(change(jnp.array([1.0, -2.0]), lambda w: w ^ jnp.uint32(1 << 31)))
      [-1.  2.]
    """
    bits = _width(x.dtype)
    if bits == 4:  # sub-byte arrays: by way of the low four bits of a byte
        low = lax.bitcast_convert_type(x, jnp.uint4).astype(jnp.uint8)
        return lax.bitcast_convert_type(word(low).astype(jnp.uint4), x.dtype)
    unsigned = jnp.dtype(f"uint{bits}")
    stored = word(lax.bitcast_convert_type(x, unsigned)).astype(unsigned)
    return lax.bitcast_convert_type(stored, x.dtype)


def differ(x: jax.Array, y: jax.Array) -> jax.Array:
    """Where two arrays hold different words; NaN equals NaN of the same bits.

    Args:
      x: Of a dtype that `stored_bits` takes.
      y: Of the same shape and dtype.

    Returns:
      bool of that shape.

    Examples:
      >>> print(differ(jnp.array([0.0, jnp.nan]), jnp.array([-0.0, jnp.nan])))
      [ True False]
    """
    bits = _width(x.dtype)
    unsigned = jnp.dtype(f"uint{bits}")
    first, second = (lax.bitcast_convert_type(a, unsigned) for a in (x, y))
    return first != second


def guard(faulty: jax.Array, x: jax.Array, hit: jax.Array, nonfinite: str) -> jax.Array:
    """What becomes of values that a fault has made NaN or infinite.

    Args:
      faulty: Floating.
      x: The clean array, of the same shape and dtype.
      hit: bool, of the same shape; other elements are never touched.
      nonfinite: ``"keep"``, ``"zero"``, or ``"clamp"``: infinities to the largest
        finite magnitude of `x`, NaN to 0 (a range guard).

    Returns:
      The guarded array.

    Examples:
      >>> x, faulty = jnp.array([1.0, -3.0]), jnp.array([jnp.inf, -3.0])
      >>> print(guard(faulty, x, jnp.array([True, False]), "clamp"))
      [ 3. -3.]
    """
    if nonfinite == "keep":
        return faulty
    value = jnp.zeros_like(x)
    if nonfinite == "clamp":
        largest = largest_magnitude(x)
        limit = jnp.where(faulty > 0, largest, -largest)
        value = jnp.where(jnp.isinf(faulty), limit, value)
    return jnp.where(hit & ~jnp.isfinite(faulty), value, faulty)


def _width(dtype: Any) -> int:
    dtype = jnp.dtype(dtype)
    bits = 0
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.finfo(dtype).bits
    elif jnp.issubdtype(dtype, jnp.integer):
        bits = jnp.iinfo(dtype).bits
    if bits not in (4, 8, 16, 32):
        raise TypeError(
            f"x must be floating or integer of 4, 8, 16 or 32 bits, got {dtype}"
        )
    return bits
