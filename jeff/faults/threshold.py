"""Bernoulli variables from random words, by comparison with a rate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["RATE_TOLERANCE", "WORD", "below", "reaches", "unreachable"]

RATE_TOLERANCE = 1e-3
"""Relative error of a rate, from finite resolution, above which it is refused."""

WORD = 2.0**32
"""How many values a random word has."""

_BELOW_WORD = 2.0**32 - 256.0  # the largest float32 that a uint32 holds


def below(word: jax.Array, rate: Any, units: float = WORD) -> jax.Array:
    """Whether words, in units of ``1 / units``, lie below a rate.

    Args:
      word: uint32, any shape.
      rate: float32 that broadcasts to it, in [0, 1].
      units: How many units a rate of 1 has; words are uniform below ``2^32``.

    Returns:
      bool of the shape of `word`: true with probability ``rate * units / 2^32``.

    Examples:
      >>> print(below(jnp.array([0, 2**31], jnp.uint32), 0.5))
      [ True False]
    """
    threshold = jnp.round(jnp.asarray(rate) * np.float32(units))
    low = jnp.minimum(threshold, _BELOW_WORD).astype(jnp.uint32)
    return (word < low) | (threshold >= WORD)


def reaches(rate: float, units: float) -> bool:
    """Whether a multiple of ``1 / units`` is near enough to a rate.

    Args:
      rate: Probability.
      units: How many steps there are up to 1.

    Returns:
      Whether the nearest one is off by `RATE_TOLERANCE` of the rate at most.

    Examples:
      >>> reaches(0.25, 2.0**16), reaches(1e-6, 2.0**16)
      (True, False)
    """
    return abs(round(rate * units) / units - rate) <= RATE_TOLERANCE * rate


def unreachable(rate: Any, units: float, top: float = 1.0) -> jax.Array:
    """Whether some rate, traced or not, cannot be drawn.

    Args:
      rate: float32, any shape.
      units: How many steps there are up to 1.
      top: Largest rate that may be asked for.

    Returns:
      bool ``[]``: whether a rate is NaN, negative or above `top`, or so small a
      positive number that no multiple of ``1 / units`` but 0 is near.

    Examples:
      >>> print(unreachable(jnp.array([0.0, 0.5]), 2.0**16))
      False
      >>> print(*(unreachable(jnp.float32(p), 2.0**16) for p in (1e-9, -0.1, jnp.nan)))
      True True True
    """
    rate = jnp.asarray(rate, jnp.float32)
    fits = (rate >= 0) & (rate <= np.float32(top))
    # By its bits: devices that flush subnormal numbers to 0 compare them as 0.
    positive = jax.lax.bitcast_convert_type(rate, jnp.int32) > 0
    lost = positive & (jnp.round(rate * np.float32(units)) == 0)
    return ~jnp.all(fits & ~lost)
