"""Words of independent bits, all bits of a word decided at once.

Compares a random binary fraction ``0.u_1 u_2 ... u_16`` with the rate from the lowest
digit up: where the rate's digit is 1, ``u = 0`` is below and ``u = 1`` undecided; where
it is 0, ``u = 1`` is above.

References:
  Derivation: the comparison of two binary fractions, digit by digit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jeff.prng import named_key
from pallas_kernels import threefry

__all__ = ["PLANES", "bit_planes"]

PLANES = 16
"""Binary digits of a rate."""


def bit_planes(key: jax.Array, rate: Any, count: int, width: int) -> jax.Array:
    """Words each of whose bits is 1 with its own probability.

    Args:
      key: A JAX key.
      rate: float32 ``[]`` or ``[width]``, lowest bit first; rounded to a multiple of
        2^-16. May be traced.
      count: Number of words.
      width: 8, 16 or 32 bits.

    Returns:
      Unsigned integers of that width, ``[count]``.

    Examples:
      >>> words = jax.jit(lambda key: bit_planes(key, 1.0, 3, 8))(jax.random.key(0))
      >>> print(words)
      [255 255 255]
    """
    size = threefry.padded(-(-count * width // 32))
    units = jnp.round(jnp.asarray(rate) * np.float32(2.0**PLANES)).astype(jnp.uint32)
    lanes = jnp.arange(32, dtype=jnp.uint32)
    units = jnp.broadcast_to(units, (width,))[lanes % width]
    keys = jax.vmap(lambda plane: named_key(key, "plane", plane))(jnp.arange(PLANES))

    def digits(plane):
        digit = (units >> jnp.asarray(plane, jnp.uint32)) & jnp.uint32(1)
        return jnp.sum(digit << lanes, dtype=jnp.uint32)

    def compare(plane, below):
        u, digit = threefry.words(keys[plane], size), digits(plane)
        return (~u & (below | digit)) | (u & below & digit)

    start = threefry.zeros(key, (size,), jnp.uint32)
    below = lax.fori_loop(0, PLANES, compare, start)
    below |= digits(PLANES)  # a rate of 1 has the digit before the point
    return lax.bitcast_convert_type(below, f"uint{width}").reshape(-1)[:count]
