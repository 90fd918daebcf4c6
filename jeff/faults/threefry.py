"""Some of the random words that `jax.random.bits` draws, without drawing the others.

JAX's default generator is counter-based: with its (default) partitionable form, word n
of ``jax.random.bits(key, shape)`` in row-major order is the XOR of both words of
``threefry2x32(key, (n >> 32, n mod 2^32))``, so that any part of a draw can be had by
itself. Keys of other generators draw everything.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels import threefry

__all__ = ["first_columns", "fold_in_each", "random_rows", "spread"]

Groups = Sequence[tuple[int, int]]
"""Numbers of rows, and how many columns each of them has, group by group."""


def spread(values: jax.Array, groups: Groups) -> jax.Array:
    """Every value as often as its row has columns.

    Args:
      values: One per row, ``[rows]``.
      groups: Numbers of rows and their columns.

    Returns:
      ``[places]``: rows of all groups, flat, one after another.

    Examples:
      >>> print(spread(jnp.array([3, 4, 5]), [(2, 1), (1, 4)]))
      [3 4 5 5 5 5]
    """
    parts, start = [], 0
    for rows, columns in groups:
        own = values[start : start + rows, None]
        parts.append(jnp.broadcast_to(own, (rows, columns)).reshape(-1))
        start += rows
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def first_columns(values: jax.Array, groups: Groups) -> jax.Array:
    """The first columns of every row, flat.

    Args:
      values: ``[rows, ..., columns]``.
      groups: Numbers of rows, and how many columns are wanted of each of them.

    Returns:
      ``[..., places]``: of one row after another.

    Examples:
      >>> print(first_columns(jnp.arange(12).reshape(3, 4), [(2, 1), (1, 3)]))
      [ 0  4  8  9 10]
    """
    parts, start = [], 0
    for rows, columns in groups:
        part = jnp.moveaxis(values[start : start + rows, ..., :columns], 0, -2)
        parts.append(part.reshape(*part.shape[:-2], -1))
        start += rows
    return jnp.concatenate(parts, axis=-1)


def random_rows(
    keys: jax.Array, shape: tuple[int, int], first: int, groups: Groups
) -> jax.Array:
    """Random words of several keys: rows from `first` on, and their first columns.

    Args:
      keys: Keys, ``[keys]``, typed or raw.
      shape: Rows and columns of the whole draw of a key, fewer than 2^32 words.
      first: The first row that is wanted.
      groups: Numbers of keys, and how many columns are wanted of each of them.

    Returns:
      uint32 ``[shape[0] - first, places]``: of every key in turn the first columns of
      ``jax.random.bits(key, shape, "uint32")[first:]``.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> some = jax.jit(random_rows, static_argnums=(1, 2, 3))
      >>> words = some(keys, (4, 100), 1, ((2, 10), (1, 7)))
      >>> last = jax.random.bits(keys[2], (4, 100), "uint32")[1:, :7]
      >>> words.shape, bool((words[:, 20:] == last).all())
      ((3, 27), True)
    """
    rows, length = shape
    if not threefry.is_written_out(keys):
        whole = jax.vmap(lambda key: jax.random.bits(key, shape, jnp.uint32))(keys)
        return first_columns(whole[:, first:], groups)
    data = jax.random.key_data(keys)
    key = spread(data[:, 0], groups), spread(data[:, 1], groups)
    counts = [
        jnp.broadcast_to(jnp.arange(columns, dtype=jnp.uint32), (own, columns))
        for own, columns in groups
    ]
    column = jnp.concatenate([count.reshape(-1) for count in counts])

    def one_row(row):
        return threefry.bits(key, row * jnp.uint32(length) + column)

    # A loop keeps XLA from doing the rounds anew wherever the words are used.
    return lax.map(one_row, jnp.arange(first, rows, dtype=jnp.uint32))


def fold_in_each(keys: jax.Array, *data: jax.Array) -> jax.Array:
    """Keys with numbers folded in, one after another.

    Args:
      keys: Keys, ``[keys]``, typed or raw.
      *data: uint32 ``[keys]`` each.

    Returns:
      Keys: ``jax.random.fold_in(jax.random.fold_in(key, data[0]), data[1])`` and so on
      for every key.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> numbers = jnp.array([5, 6], jnp.uint32)
      >>> folded = jax.jit(fold_in_each)(keys, numbers, numbers)
      >>> twice = jax.random.fold_in(jax.random.fold_in(keys[1], 6), 6)
      >>> bool(folded[1] == twice)
      True
    """
    if jax.random.key_impl(keys) != "threefry2x32":
        for number in data:
            keys = jax.vmap(jax.random.fold_in)(keys, number)
        return keys
    pair = jax.random.key_data(keys)

    def fold(pair, number):
        key = pair[..., 0], pair[..., 1]
        words = threefry.block(key, (jnp.zeros_like(number), number))
        return jnp.stack(words, axis=-1), None

    pair, _ = lax.scan(fold, pair, jnp.stack(data))
    is_typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(pair, impl="threefry2x32") if is_typed else pair
