"""Where independent rare events happen, drawn by their gaps, in integers only.

Among positions 0, 1, 2, ... that are hit independently with probability p, the number
of misses before the next hit is geometric: ``P(G = g) = q^g p`` with ``q = 1 - p``. Its
digits in base 256 are independent of each other, and digit j is geometric again, with
``q_j = q^(256^j)``, cut off at 256::

    P(digit j <= d) = (1 - q_j^(d+1)) / (1 - q_j^256)

so a gap is a few look-ups of random 32-bit words in tables computed on the host in
double precision, one look-up per digit (Walker's alias method). No logarithm is taken
on the device: the same key gives the same positions on every backend.

The buffer of positions has a static capacity. By Bernstein's inequality the count
exceeds it with a probability of at most `OVERFLOW_PROBABILITY`; if so, a flag is set.

References:
  Bernstein's inequality: S. Boucheron, G. Lugosi, P. Massart, "Concentration
  Inequalities" (2013), section 2.8. A. J. Walker, "An efficient method for generating
  discrete random variables with general distributions" (ACM TOMS, 1977). The digits:
  derivation above.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jeff.faults.threefry import spread
from jeff.faults.threshold import RATE_TOLERANCE, WORD

__all__ = ["OVERFLOW_PROBABILITY", "capacity", "positions", "words_per_gap"]

OVERFLOW_PROBABILITY = 1e-12
"""Bound on the probability that a draw does not fit its buffer."""

_DIGITS = 4  # of base 256 at most: gaps below 2^32


def capacity(size: int, rate: float) -> int:
    """Length of a buffer that holds the hits of `size` positions.

    Bernstein: ``P(count >= mean + t) <= exp(-t^2 / (2 (variance + t / 3)))``, solved
    for t at `OVERFLOW_PROBABILITY`: about ``mean + 7.4 sigma + 18``.

    Args:
      size: Number of positions.
      rate: Probability of a hit.

    Returns:
      The length, at most `size`.

    Examples:
      >>> capacity(2**18, 1e-3), capacity(5, 1e-3)
      (393, 5)
    """
    mean, variance = size * rate, size * rate * (1.0 - rate)
    log = -math.log(OVERFLOW_PROBABILITY)
    excess = log / 3 + math.sqrt(log**2 / 9 + 2 * log * variance)
    return min(size, math.ceil(mean + excess))


def words_per_gap(size: int, rate: float) -> int:
    """How many random words a gap takes.

    Args:
      size: Number of positions.
      rate: Probability of a hit.

    Returns:
      The number of digits, 1 to 4; 0 if nothing is random.

    Raises:
      ValueError: If `rate` is too small to be resolved.

    Examples:
      >>> words_per_gap(2**18, 0.1), words_per_gap(2**18, 1e-5)
      (1, 3)
    """
    return 0 if rate in (0, 1) or size == 0 else len(_chances(size, rate))


def positions(
    words: jax.Array,
    size: int,
    rate: float,
    *,
    used: Sequence[int],
    groups: Sequence[tuple[int, int]],
) -> tuple[jax.Array, jax.Array]:
    """Positions hit independently with one probability, in rising order, per page.

    Args:
      words: Random uint32, ``[words_per_gap(size, rate), places]``: the places of one
        page after another.
      size: Number of positions of a page, below 2^31.
      rate: Probability of a hit, known; relative error at most `RATE_TOLERANCE`.
      used: How many positions are wanted of each page, the first ones.
      groups: Numbers of pages, and the places of each of them: at least
        ``capacity(used, rate) + 1``, the last of which only tells an overflow.

    Returns:
      ``(index, overflow)``: int32 ``[places]``, filled up with `size`; and bool
      ``[pages]``, whether there were more hits than places.

    Raises:
      ValueError: If `rate` is too small to be resolved.

    Examples:
      >>> words = np.random.default_rng(0).integers(0, 2**32, (1, 6), np.uint32)
      >>> index, overflow = jax.jit(
      ...     lambda words: positions(words, 5, 0.5, used=[5], groups=[(1, 6)])
      ... )(words)
      >>> print(index, overflow)
      [2 4 5 5 5 5] [False]
    """
    places = np.repeat([n for _, n in groups], [pages for pages, _ in groups])
    last = np.cumsum(places) - 1
    step = _gaps(words, size, rate) + jnp.uint32(1)
    # uint32 sums are right up to the first that passes the page, and may wrap after it.
    total = jnp.cumsum(step, dtype=jnp.uint32)
    first = last + 1 - places
    index = total - jnp.uint32(1) - spread(total[first] - step[first], groups)
    past = index >= spread(jnp.asarray(used, jnp.uint32), groups)
    if max(places) * (size + 1) >= WORD:
        page = spread(jnp.arange(len(places), dtype=jnp.int32), groups)
        past = lax.cummax(2 * page + past.astype(jnp.int32)) > 2 * page
    overflow = ~past[last]
    is_last = [jnp.zeros((pages, n), bool).at[:, -1].set(True) for pages, n in groups]
    past = past | jnp.concatenate([own.reshape(-1) for own in is_last])
    return jnp.where(past, jnp.uint32(size), index).astype(jnp.int32), overflow


def _gaps(words, size, rate):
    """Misses before each hit, uint32, at most `size`."""
    gap, beyond = jnp.zeros(words.shape[1], jnp.uint32), jnp.zeros((), bool)
    if rate == 0 or size == 0:
        return gap + jnp.uint32(size)
    chances = [] if rate == 1 else _chances(size, rate)
    for j, (chance, word) in enumerate(zip(chances, words, strict=True)):
        place = word >> jnp.uint32(24)
        cell = jnp.asarray(_alias_table(chance))[place]
        own = (word & jnp.uint32(0xFFFFFF)) < (cell >> jnp.uint32(8))
        digit = jnp.where(own, place, cell & jnp.uint32(0xFF))
        if j == len(chances) - 1:
            beyond = digit == jnp.uint32(len(chance) - 1)
        gap = gap + digit * jnp.uint32(256**j)
    return jnp.where(beyond, jnp.uint32(size), jnp.minimum(gap, jnp.uint32(size)))


def _chances(size: int, rate: float) -> list[np.ndarray]:
    """Probabilities of the values of each digit, lowest first, in units of 2^-32.

    Whole numbers that sum to 2^32. The topmost digit is not cut off at 256: its values
    end where the gap reaches `size`, or where half a unit is left for longer gaps, and
    one more means "beyond".
    """
    log_miss = math.log1p(-rate)
    digits = 1
    while digits < _DIGITS and not _last(log_miss, size, digits):
        digits += 1
    top = 256 ** (digits - 1)
    if -math.expm1(log_miss * top) * RATE_TOLERANCE < 0.5 / WORD:
        raise ValueError(
            f"rate {rate:.3g} is below the resolution of sparse sampling, "
            f"{0.5 / WORD / RATE_TOLERANCE / 256 ** (_DIGITS - 1):.1g}"
        )
    chances = []
    for j in range(digits):
        last = j == digits - 1
        entries = min(255, math.ceil(size / top)) if last else 255
        below = -np.expm1(log_miss * 256.0**j * np.arange(entries + 1))
        if not last:
            below = below / -np.expm1(log_miss * 256.0 ** (j + 1))
        below = np.append(np.rint(below * WORD), WORD).astype(np.int64)
        chances.append(np.diff(below))
    return chances


def _last(log_miss: float, size: int, digits: int) -> bool:
    """Whether no digit is needed above the first `digits`."""
    top = 256 ** (digits - 1)  # its smallest probability must be resolved by 2^-32
    covered = 255 * top >= size or math.exp(log_miss * 255 * top) < 0.5 / WORD
    return covered and -math.expm1(log_miss * top) * RATE_TOLERANCE >= 0.5 / WORD


def _alias_table(chance: np.ndarray) -> np.ndarray:
    """Walker's table of at most 256 values: uint32 ``[256]``.

    Place i, of 2^24 units, gives value i below the bound in the upper 24 bits of its
    entry, and the value in the lower 8 bits from there on.
    """
    left = np.zeros(256, np.int64)
    left[: len(chance)] = chance
    unit = 2**24
    bound, alias = np.zeros(256, np.int64), np.arange(256)
    short = [i for i in range(256) if left[i] < unit]
    long = [i for i in range(256) if left[i] >= unit]
    while short:
        i, donor = short.pop(), long[-1]
        bound[i], alias[i] = left[i], donor
        left[donor] -= unit - left[i]
        if left[donor] < unit:
            short.append(long.pop())
    # What remains is exactly full, and is its own alias.
    return ((bound << 8) | alias).astype(np.uint32)
