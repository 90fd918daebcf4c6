"""Threefry-2x32 as arithmetic on uint32 arrays, which a kernel can do in registers.

The same words as `jax.random` gives for keys of ``"threefry2x32"``, where
``jax_threefry_partitionable`` is on.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["bits", "block"]

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)


def block(
    key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Two random words of a counter, in 20 rounds.

    Args:
      key: Its two words, uint32.
      counter: Two words, uint32, of a shape that goes with the key's.

    Returns:
      Two words, uint32.

    Examples:
      >>> zero = jnp.uint32(0)
      >>> [hex(word) for word in block((zero, zero), (zero, zero))]
      ['0x6b200159', '0x99ba4efe']

    References:
      Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
      SC 2011, section 3.3 and table 2; the example is of the authors' test vectors.
    """
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    left, right = counter[0] + key[0], counter[1] + key[1]
    for group, rotations in enumerate(itertools.islice(itertools.cycle(_ROTATIONS), 5)):
        for distance in rotations:
            left = left + right
            right = left ^ _rotated(right, distance)
        left = left + schedule[(group + 1) % 3]
        right = right + (schedule[(group + 2) % 3] + np.uint32(group + 1))
    return left, right


def bits(key: tuple[jax.Array, jax.Array], index: jax.Array) -> jax.Array:
    """The word at some place of ``jax.random.bits(key, shape)``.

    Args:
      key: Its two words, uint32.
      index: The place, uint32, of a shape that goes with the key's.

    Returns:
      uint32.

    Examples:
      >>> key = jax.random.key(7)
      >>> first, second = jax.random.key_data(key)
      >>> words = bits((first, second), jnp.arange(3, dtype=jnp.uint32))
      >>> bool((words == jax.random.bits(key, (3,))).all())
      True
    """
    left, right = block(key, (jnp.uint32(0), index))
    return left ^ right


def _rotated(word: jax.Array, distance: int) -> jax.Array:
    up = lax.shift_left(word, jnp.full_like(word, distance))
    down = lax.shift_right_logical(word, jnp.full_like(word, 32 - distance))
    return up | down
