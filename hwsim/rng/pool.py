"""The pool of Wallace's method: its first contents, and one pass over it.

Four at a time are transformed by an orthogonal matrix of additions and one shift,

    t = (a + b + c + d) / 2,    (a, b, c, d) -> (a - t, b - t, t - c, t - d),

which keeps the sum of squares, but for rounding: with the sum S of the four, the shift
is exact where S is even, and an odd S changes the sum of squares by ``1 - S`` (put
``t - 1/2`` in place of t and expand). That change is given back, so that the sum of
squares is known at all times.

References:
  C. S. Wallace, "Fast pseudorandom generators for normal and exponential variates",
  ACM TOMS 22(1), 1996 (recalled, not at hand). The change by rounding: derived above.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["first_pool", "transform"]


def transform(
    pool: jax.Array,
    start: jax.Array,
    stride: jax.Array,
    mask: jax.Array,
    *,
    shuffle: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """One pass over the pool.

    Quad q is made of the addresses numbered ``4 q`` to ``4 q + 3``. Its results go to
    ``q + j N / 4``, j from 0 to 3, or without the shuffle to ``4 q + j``.

    Args:
      pool: int32 ``[N]``, N a power of two.
      start: First address, int32 ``[]``.
      stride: Odd step of the addresses, int32 ``[]``.
      mask: What addresses are XORed with, below N, int32 ``[]``.
      shuffle: Whether the results of a quad go to four quarters of the pool.

    Returns:
      ``(pool, change)``: the new pool, and by how much its sum of squares has grown,
      int32 ``[]``.

    Examples:
      >>> zero, one = jnp.int32(0), jnp.int32(1)
      >>> pool, change = jax.jit(transform)(jnp.array([1, 2, 3, 5]), zero, one, zero)
      >>> print(pool, change)  # 54 after 39
      [-4 -3  2  0] -10
    """
    size = pool.shape[0]
    index = jnp.arange(size, dtype=jnp.int32)
    address = ((start + index * stride) & jnp.int32(size - 1)) ^ mask
    a, b, c, d = pool[address].reshape(-1, 4).T
    total = a + b + c + d
    half = total >> jnp.int32(1)
    odd = total & jnp.int32(1)
    after = jnp.stack([a - half, b - half, half - c, half - d], axis=not shuffle)
    return after.ravel(), jnp.sum(odd * (1 - total), dtype=jnp.int32)


@functools.lru_cache(maxsize=16)
def first_pool(size: int, fraction_bits: int) -> tuple[np.ndarray, int]:
    """Quantiles of the normal distribution, scaled to a mean square of 1.

    Args:
      size: N, how many.
      fraction_bits: Binary places f.

    Returns:
      ``(pool, ledger)``: int32 ``[N]``, rising; and the sum of their squares less
      ``N 4^f``, which rounding makes other than 0.

    Examples:
      >>> first_pool(4, 4)
      (array([-22,  -6,   6,  22], dtype=int32), 16)
    """
    quantile = statistics.NormalDist().inv_cdf
    exact = np.array([quantile((i + 0.5) / size) for i in range(size)])
    exact /= np.sqrt(np.mean(exact**2))
    table = np.rint(exact * 2**fraction_bits).astype(np.int32)
    energy = int((table.astype(np.int64) ** 2).sum())
    return table, energy - size * 4**fraction_bits
