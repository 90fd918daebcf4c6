"""Threefry-2x32 written out: the words of `jax.random`, made in one pass.

On a CPU, JAX makes the 20 rounds in a loop of five turns, each a pass over all words;
on small arrays the turns cost more than the rounds. Written out they are one pass, and
a kernel can do them in registers. The words are the same as `jax.random` gives for keys
of ``"threefry2x32"``, where ``jax_threefry_partitionable`` is on, as it is by default.
Compilation can take longer where many small arrays are drawn.

Three forms, by use: `unrolled` keys for what `jax.random` makes of the words, `words`
for a single use that they can join, `bits` and `block` for a kernel.
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

__all__ = [
    "bits", "block", "blocks", "fold_in", "is_written_out", "padded", "unrolled",
    "words", "zeros",
]  # fmt: skip

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)
_JAX = "threefry2x32"
_MOST = 2**32 - 1  # numbers of a draw whose places are one word


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
      count: How many blocks, at most ``2^32 - 16``.

    Returns:
      uint32 ``[count]`` each; their exclusive or is ``jax.random.bits(key, (count,))``.

    Raises:
      TypeError: If `key` is of another generator.
      ValueError: If it is not one key, or `count` is too large.

    Examples:
      >>> key = jax.random.key(7)
      >>> left, right = blocks(key, 3)
      >>> bool((left ^ right == jax.random.bits(key, (3,))).all())
      True
    """
    if jax.random.key_impl(key) != _JAX:
        raise TypeError(f"key must be of {_JAX!r}, got {jax.random.key_impl(key)!r}")
    data = jax.random.key_data(key)
    if data.ndim != 1:
        raise ValueError(f"key must be one key, got shape {data.shape[:-1]}")
    if padded(count) > _MOST:
        raise ValueError(f"count must be at most 2^32 - 16, got {count}")
    left, right = _both_words(data, (padded(count),))
    return left[:count], right[:count]


def words(key: jax.Array, count: int) -> jax.Array:
    """``jax.random.bits(key, (count,))``, for a single use.

    They are not kept in memory if XLA can make them where they are used; it would make
    them anew at every further use.

    Args:
      key: A key, typed or raw, of any generator.
      count: How many.

    Returns:
      uint32 ``[count]``.

    Examples:
      >>> key = jax.random.key(7)
      >>> bool((words(key, 3) == jax.random.bits(key, (3,))).all())
      True
    """
    if not is_written_out(key) or count > _MOST:
        return jax.random.bits(key, (count,))
    data = jax.random.key_data(key)
    return bits((data[0], data[1]), lax.iota(jnp.uint32, count))


def zeros(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros for a loop of draws to start from.

    Args:
      key: The key of the draws, typed or raw.
      shape: Of the array.
      dtype: Of the array, an integer's.

    Returns:
      Zeros; within `jax.shard_map` they vary over the axes over which the key does, as
      what a loop starts from must vary over those of what it gives.

    Examples:
      >>> print(zeros(jax.random.key(7), (3,), jnp.uint8))
      [0 0 0]
    """
    return _zeros_like(jax.random.key_data(key), shape, dtype)


def is_written_out(key: jax.Array) -> bool:
    """Whether this module can make what `jax.random` draws with a key.

    Args:
      key: Keys, any shape, typed or raw.

    Returns:
      Whether they are of ``"threefry2x32"``, with ``jax_threefry_partitionable`` on.

    Examples:
      >>> [is_written_out(jax.random.key(0, impl=i)) for i in ("threefry2x32", "rbg")]
      [True, False]
    """
    config: Any = jax.config  # its options are set at run time
    return jax.random.key_impl(key) == _JAX and config.jax_threefry_partitionable


def padded(count: int) -> int:
    """A number of words, rounded up so that they are made quickly.

    XLA on several cores of a CPU makes 2^k words at once only where their number is a
    multiple of it, and odd numbers of them one by one. Few words are left alone: they
    are not worth several cores, and may be one row of many.

    Args:
      count: How many are wanted.

    Returns:
      The next multiple of 16, from 1,024 on.

    Examples:
      >>> padded(9), padded(1024), padded(1025)
      (9, 1024, 1040)
    """
    return count if count < 1024 else -(-count // 16) * 16


def unrolled(key: jax.Array) -> jax.Array:
    """The same key, with which `jax.random` draws the same numbers in one pass.

    Args:
      key: Keys, any shape, typed or raw.

    Returns:
      Typed keys of another implementation, same shape: the functions of `jax.random`
      take them, but for those that want keys of ``"threefry2x32"`` by name
      (`jax.random.poisson`); `jax.random.split` and `jax.random.fold_in` give such
      keys. Keys as they are if they are of another generator than ``"threefry2x32"``,
      or ``jax_threefry_partitionable`` is off. ``jax_debug_key_reuse`` does not see
      that such a key and its original are used twice.

    Examples:
      >>> key = jax.random.key(0)
      >>> a, b = (jax.random.normal(k, (5,)) for k in (key, unrolled(key)))
      >>> bool((a == b).all())
      True
    """
    if not is_written_out(key):
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


# What JAX calls with a key runs compiled also where its caller does not.


def _seed(seed: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl=_JAX))


@functools.partial(jax.jit, static_argnums=1)
def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if _is_counted(shape):
        return jnp.stack(_words(key, shape), axis=-1)
    keys = jax.random.split(jax.random.wrap_key_data(key, impl=_JAX), shape)
    return jax.random.key_data(keys)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    if not _is_counted(shape):
        plain = jax.random.wrap_key_data(key, impl=_JAX)
        return jax.random.bits(plain, shape, f"uint{width}")

    size = math.prod(shape)

    def drawn(key):
        left, right = _words(key, (padded(size),))
        if width == 64:
            high = lax.convert_element_type(left, jnp.uint64)
            return (high << np.uint64(32)) | lax.convert_element_type(right, jnp.uint64)
        return lax.convert_element_type(left ^ right, f"uint{width}")

    return _once(drawn, key)[:size].reshape(shape)


@jax.jit
def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    return jnp.stack(block((key[0], key[1]), (jnp.uint32(0), data)), axis=-1)


@functools.partial(jax.jit, static_argnums=1)
def _both_words(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    return _once(lambda key: _words(key, shape), key)


def _once(make: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """``make(key)``, on a CPU kept in memory.

    XLA would do the rounds anew wherever the words are used. It cannot look into a
    loop, nor see that this one has a single turn. Elsewhere it is left to XLA.
    """

    def in_loop(key):
        like = jax.eval_shape(make, key)
        start = jax.tree.map(lambda a: _zeros_like(key, a.shape, a.dtype), like)
        turns = lax.optimization_barrier(np.int32(1))
        return lax.fori_loop(0, turns, lambda _, made: make(key), start)

    return lax.platform_dependent(key, cpu=in_loop, default=make)


def _zeros_like(data: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros that vary over a mesh as the words of a key do."""
    nothing = data.reshape(-1)[0] & np.uint32(0)
    return jnp.broadcast_to(nothing.astype(dtype), shape)


def _is_counted(shape: tuple[int, ...]) -> bool:
    """Whether one word counts the numbers: their size may be symbolic, or too large."""
    known = all(isinstance(n, int | np.integer) for n in shape)
    return known and math.prod(shape) <= _MOST - 15  # room for `padded`


def _words(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Both words of the counters 0, 1, ... in row-major order."""
    low = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return block((key[0], key[1]), (jnp.uint32(0), low))


def _rotated(word: jax.Array, distance: int) -> jax.Array:
    up = lax.shift_left(word, jnp.full_like(word, distance))
    down = lax.shift_right_logical(word, jnp.full_like(word, 32 - distance))
    return up | down
