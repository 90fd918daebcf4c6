"""Uniform whole numbers below bounds of any size, such as words of a large leaf."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["uniform_below"]


def uniform_below(key: jax.Array, size: Any) -> jax.Array:
    """A number in ``[0, size)``, each with probability ``1 / size`` to 2^-64.

    64 random bits, multiplied by `size`; the part above them is the number.
    `jax.random.randint` takes the remainder of 32 bits for any `size` above 2^16: of
    10^9 words some come up a quarter more often than others.

    Args:
      key: A key.
      size: int32 ``[]``, at least 1; may be traced.

    Returns:
      int32 ``[]``.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 5)
      >>> print(jax.jit(jax.vmap(uniform_below, (0, None)))(keys, 10**9))
      [182378671  20891267 912292848 733950253 729005440]
    """
    low, high = jax.random.bits(key, (2,), jnp.uint32)
    size = jnp.asarray(size, jnp.int32).astype(jnp.uint32)
    middle = high * size
    carry = (middle + _upper_half(low, size)) < middle  # the sum has wrapped
    return (_upper_half(high, size) + carry.astype(jnp.uint32)).astype(jnp.int32)


def _upper_half(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper 32 bits of a product of two uint32."""
    half, mask = jnp.uint32(16), jnp.uint32(0xFFFF)
    low_a, high_a, low_b, high_b = a & mask, a >> half, b & mask, b >> half
    first = high_a * low_b + (low_a * low_b >> half)
    second = low_a * high_b + (first & mask)
    return high_a * high_b + (first >> half) + (second >> half)
