"""Normal numbers from random words, as `jax.random.normal` makes them of float32."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["SCALE", "erf_inv", "uniform"]

SCALE = np.float32(math.sqrt(2))
"""What `erf_inv` of a `uniform` number is multiplied by to be standard normal."""

_LOW = np.nextafter(np.float32(-1), np.float32(0))
_ONE = np.float32(1)
_CENTER = (  # in w - 2.5, for w < 5, from the highest power on
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (  # in sqrt(w) - 3
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def uniform(word: jax.Array) -> jax.Array:
    """A number of (-1, 1) from 23 bits of a word.

    Args:
      word: uint32.

    Returns:
      float32, of the shape of `word`; the same as `jax.random.uniform` makes.
    """
    mantissa = lax.shift_right_logical(word, jnp.full_like(word, 9))
    number = lax.bitcast_convert_type(mantissa | np.uint32(0x3F800000), jnp.float32)
    # In [1, 2). Twice what is beyond 1 is exact: with or without a fused multiply-add,
    # the sum is rounded once.
    return (number - _ONE) * np.float32(2) + _LOW


def erf_inv(u: jax.Array) -> jax.Array:
    """The inverse of the error function, to 3 units in the last place of XLA's.

    ``1 - u**2`` is of a square rounded to float32, as in XLA's: near the ends this
    rounding moves the result by up to 6e-6 of it.

    Args:
      u: float32 in (-1, 1), from -1 + 2^-24 to 1 - 2^-24.

    Returns:
      float32, of the shape of `u`.

    References:
      Giles, "Approximating the erfinv function", GPU Computing Gems, Jade edition,
      2011, the single-precision listing.
    """
    # Without a minimum between them, square and difference may become one fused
    # multiply-add, which does not round the square.
    square = jnp.minimum(u * u, _ONE - np.float32(2.0**-24))
    w = -jnp.log(_ONE - square)
    center = _polynomial(_CENTER, w - np.float32(2.5))
    tail = _polynomial(_TAIL, w * lax.rsqrt(w) - np.float32(3))
    return jnp.where(w < np.float32(5), center, tail) * u


def _polynomial(coefficients, x: jax.Array) -> jax.Array:
    total = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + np.float32(coefficient)
    return total
