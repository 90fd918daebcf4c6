"""A generator of fixed-point integers as a function of a key and a number."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["draw_function"]


def draw_function(
    codes: Callable[[jax.Array, int], jax.Array], per_step: int, fraction_bits: int
) -> Callable[[jax.Array, int], jax.Array]:
    """``normal_fn(key, n)``: float32 ``[n]``, a pure function of both.

    Args:
      codes: Gives ``steps * per_step`` integers, in any shape, from a key and `steps`.
      per_step: Draws per step.
      fraction_bits: Binary places of the integers.

    Returns:
      The function. It raises `ValueError` if n is negative.

    Examples:
      >>> ones = draw_function(lambda key, steps: jnp.ones(4 * steps, int), 4, 1)
      >>> print(ones(jax.random.key(0), 3))
      [0.5 0.5 0.5]
    """

    def normal_fn(key: jax.Array, n: int) -> jax.Array:
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n}")
        drawn = codes(key, -(-n // per_step)).ravel()[:n]
        return drawn.astype(jnp.float32) * jnp.float32(2.0**-fraction_bits)

    return normal_fn
