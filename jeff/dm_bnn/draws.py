"""Normal numbers of few random bits: several from one random word.

A number of b bits is one of ``N = 2^b`` equally likely values, one per bin of the
normal distribution of probability 1/N: its mean there, stretched so that the variance
is 1,

    z_i = Phi^-1(i / N)
    m_i = N (phi(z_i) - phi(z_(i+1)))              mean of a normal number in bin i
    v_i = m_i / sqrt(mean(m^2)),                   i = 0 .. N - 1

The values are symmetric, so that the mean and all odd moments are exactly 0. Without
the stretch the variance would be 1 less the mean variance within a bin. What is left:

    bits   largest value   excess kurtosis   Kolmogorov-Smirnov distance
       8           2.970            -0.036   2.4e-3 = 0.62 / N
      16           4.388          -0.00017   9.5e-6 = 0.62 / N

A sum of K products with such numbers has about 1/K of that kurtosis. There are no
values beyond the largest, so tails of single weights are cut there.

One Threefry block of 64 random bits gives four numbers of 16 bits or eight of 8, where
`jax.random.normal` takes a block for each. The values are looked up, not computed:
a table of 1 kB or 256 kB.

References:
  Derivation: above; KS distance: the largest of ``|Phi(v_i) - i / N|`` and ``|Phi(v_i)
  - (i + 1) / N|``. The means are those of the quantizer with equally likely cells.
  J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, for
  Threefry.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jeff.dm_bnn import keys
from pallas_kernels import threefry

__all__ = ["normal8", "normal16", "values"]

_CODES = {8: jnp.uint8, 16: jnp.uint16}


def normal16(key: jax.Array, count: int) -> jax.Array:
    """Normal numbers of 16 random bits each, for the argument `draw` of `predict`.

    Args:
      key: A typed or raw JAX key (Threefry).
      count: How many, at least 0.

    Returns:
      float32 ``[count]``, mean 0 and variance 1; pure, may be mapped and compiled.

    Raises:
      TypeError: If `key` is no key.
      ValueError: If it is of another generator, or `count` is negative.

    Examples:
      >>> print(normal16(jax.random.key(0), 3))
      [-2.5574667  -0.20582296 -0.49990574]
    """
    return _drawn(key, count, 16)


def normal8(key: jax.Array, count: int) -> jax.Array:
    """Normal numbers of 8 random bits each, for the argument `draw` of `predict`.

    Args:
      key: A typed or raw JAX key (Threefry).
      count: How many, at least 0.

    Returns:
      float32 ``[count]``, mean 0 and variance 1; pure, may be mapped and compiled.

    Raises:
      TypeError: If `key` is no key.
      ValueError: If it is of another generator, or `count` is negative.

    Examples:
      >>> print(normal8(jax.random.key(0), 3))
      [-0.38652074 -2.5274122  -1.1413537 ]
    """
    return _drawn(key, count, 8)


@functools.lru_cache
def values(bits: int) -> np.ndarray:
    """What a number of few bits can be, all equally likely.

    Args:
      bits: 8 or 16.

    Returns:
      float32 ``[2^bits]``, rising, antisymmetric; read-only.

    Raises:
      ValueError: If there is no such table.

    Examples:
      >>> print(values(8)[[0, 1, 127, 128, 255]].round(4))
      [-2.9702 -2.5274 -0.0049  0.0049  2.9702]
    """
    if bits not in _CODES:
        raise ValueError(f"bits must be one of {tuple(_CODES)}, got {bits!r}")
    number = 2**bits
    # One half: the other has the opposite signs, to the last digit.
    edges = special.ndtri(np.arange(number // 2 + 1) / number)
    density = np.exp(-np.square(edges) / 2) / np.sqrt(2 * np.pi)
    lower = -number * np.diff(density)
    lower /= np.sqrt(np.square(lower).mean())
    table = np.concatenate([lower, -lower[::-1]]).astype(np.float32)
    table.flags.writeable = False
    return table


def _drawn(key: jax.Array, count: int, bits: int) -> jax.Array:
    """Looks up the codes in the random words of one key."""
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    table, half = values(bits), -(-count * bits // 64)  # a block has two words
    words = jnp.concatenate(threefry.blocks(keys.typed(key), half))
    codes = jax.lax.bitcast_convert_type(words, _CODES[bits]).reshape(-1)[:count]
    places = codes.astype(jnp.int32)
    return jnp.asarray(table).at[places].get(mode="promise_in_bounds")
