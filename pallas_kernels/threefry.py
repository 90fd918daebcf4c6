"""Threefry-2x32 written out: the words of `jax.random`, made in one pass.

On a CPU, JAX makes the 20 rounds in a loop of five turns, each a pass over all words;
on small arrays the turns cost more than the rounds. Written out they are one fused
pass, which the numbers made of the words join, and a kernel can do them in registers.
The words are the same as `jax.random` gives for keys of ``"threefry2x32"``, where
``jax_threefry_partitionable`` is on, as it is by default. Compilation can take longer
where many small arrays are drawn.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as extend

__all__ = ["bits", "block", "blocks", "fold_in", "unrolled"]

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)
_JAX = "threefry2x32"


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


def blocks(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Both words of the first blocks of a key, in one pass.

    Args:
      key: A typed key of ``"threefry2x32"``.
      count: How many blocks, fewer than 2^32.

    Returns:
      uint32 ``[count]`` each; their exclusive or is ``jax.random.bits(key, (count,))``.

    Examples:
      >>> key = jax.random.key(7)
      >>> left, right = blocks(key, 3)
      >>> bool((left ^ right == jax.random.bits(key, (3,))).all())
      True
    """
    data = jax.random.key_data(key)
    return _once(lambda: _words(data, (count,)))


def unrolled(key: jax.Array) -> jax.Array:
    """The same key, with which `jax.random` draws the same numbers in one pass.

    Args:
      key: Keys, any shape, typed or raw.

    Returns:
      Typed keys of another implementation, same shape: the functions of `jax.random`
      take them, `jax.random.split` and `jax.random.fold_in` give such keys. Keys as
      they are if they are of another generator than ``"threefry2x32"``, or
      ``jax_threefry_partitionable`` is off.

    Examples:
      >>> key = jax.random.key(0)
      >>> a, b = (jax.random.normal(k, (5,)) for k in (key, unrolled(key)))
      >>> bool((a == b).all())
      True
    """
    config: Any = jax.config  # its options are set at run time
    if jax.random.key_impl(key) != _JAX or not config.jax_threefry_partitionable:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_implementation())


def fold_in(key: jax.Array, data: Any) -> jax.Array:
    """`jax.random.fold_in`, in one pass.

    Args:
      key: A typed key.
      data: uint32, or an integer.

    Returns:
      A typed key of the same generator.

    Examples:
      >>> key = jax.random.key(0)
      >>> bool(fold_in(key, 7) == jax.random.fold_in(key, 7))
      True
    """
    folded = jax.random.fold_in(unrolled(key), data)
    if jax.random.key_impl(folded) == jax.random.key_impl(key):
        return folded
    return jax.random.wrap_key_data(jax.random.key_data(folded), impl=_JAX)


@functools.lru_cache(maxsize=1)
def _implementation() -> Any:
    return extend.define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name=f"{_JAX}_unrolled",
        tag="fryu",
    )


def _seed(seed: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl=_JAX))


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_words(key, shape), axis=-1)


def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    def drawn():
        left, right = _words(key, shape)
        if width == 64:
            high = lax.convert_element_type(left, jnp.uint64)
            return (high << np.uint64(32)) | lax.convert_element_type(right, jnp.uint64)
        return lax.convert_element_type(left ^ right, f"uint{width}")

    return _once(drawn)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    words = block((key[0], key[1]), (jnp.uint32(0), data))
    return jnp.stack(words, axis=-1)


def _once(make: Callable[[], Any]) -> Any:
    """What `make` gives, kept in memory.

    XLA would do the rounds anew wherever the words are used. It cannot look into a
    loop, nor see that this one has a single turn.
    """
    start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(make))
    turns = lax.optimization_barrier(np.int32(1))
    return lax.fori_loop(0, turns, lambda _, made: make(), start)


def _words(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Both words of the counters 0, 1, ... in row-major order."""
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"a draw must have fewer than 2^32 numbers, got {shape}")
    low = lax.iota(jnp.uint32, size).reshape(shape)
    return block((key[0], key[1]), (jnp.uint32(0), low))


def _rotated(word: jax.Array, distance: int) -> jax.Array:
    up = lax.shift_left(word, jnp.full_like(word, distance))
    down = lax.shift_right_logical(word, jnp.full_like(word, 32 - distance))
    return up | down
