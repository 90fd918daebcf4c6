"""Sparse draws by pages: stretches of one array that have a key of their own.

The positions of an array of n elements with b bits are counted ``element * b + bit``.
A page is a stretch of whole elements with a *span* of positions: 2^18, or for an array
with few positions 2^14 or 2^10 (`SPANS`). The key of page i is
``fold_in(key of the array's draw, i)``, and the hits of a page are drawn from it alone
(`jeff.faults.geometric`). So

- a draw depends on nothing but the array's key, its number of elements and b, however
  pages are grouped, mapped or spread over devices;
- pages of equal span have buffers of equal length, so those of many arrays are drawn
  at once, as one buffer ``[pages, capacity]``;
- offsets in a page are small integers, so that arrays may have any size.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.faults import geometric, threshold

__all__ = ["SPANS", "Paging", "hits", "page_keys", "paging"]

SPANS = (2**10, 2**14, 2**18)
"""Numbers of positions that a page may have."""


class Paging(NamedTuple):
    """How an array is cut into pages.

    Attributes:
      span: Positions for which hits are drawn, one of `SPANS`.
      elements: Whole elements in a page: ``span // bits``.
      count: Pages that cover the array, at least 1.
    """

    span: int
    elements: int
    count: int


def paging(size: int, bits: int = 1) -> Paging:
    """The pages of an array.

    Args:
      size: Number of elements, of any magnitude.
      bits: Positions per element, 1 to 32.

    Returns:
      Span, elements in a page, and number of pages.

    Examples:
      >>> paging(272_474, 8)
      Paging(span=262144, elements=32768, count=9)
      >>> paging(100), paging(7_000_000_000, 3).count
      (Paging(span=1024, elements=1024, count=1), 80109)
    """
    span = next((s for s in SPANS if size * bits <= s), SPANS[-1])
    elements = span // bits
    return Paging(span, elements, max(1, -(-size // elements)))


def page_keys(keys: jax.Array, counts: Sequence[int]) -> jax.Array:
    """Keys of all pages of several arrays, one array after another.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      counts: Number of pages of each.

    Returns:
      Keys, ``[sum(counts)]``.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> jax.eval_shape(lambda keys: page_keys(keys, (3, 2)), keys).shape
      (5,)
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts])
    return jax.vmap(jax.random.fold_in)(keys[owner], number)


def hits(
    keys: jax.Array, rate: Any, *, span: int, bits: int, max_rate: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The hits of pages: drawn at `max_rate`, each kept with ``rate / max_rate``.

    Args:
      keys: Keys of the pages, ``[pages]``.
      rate: float32 ``[]`` or one per bit, ``[bits]``; may be traced.
      span: Positions in a page.
      bits: Positions per element.
      max_rate: Known bound of the rate, which sets the length of the buffers.

    Returns:
      ``(offset, keep, overflow)``: int32 ``[pages, capacity]``, positions in the page,
      `span` where there is none; bool ``[pages, capacity]``, whether it is a hit; bool
      ``[pages]``, whether a buffer was too short, or the rate cannot be drawn
      (`threshold.unreachable`).

    Raises:
      ValueError: If `max_rate` is below the resolution.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> offset, keep, overflow = jax.eval_shape(
      ...     lambda keys: hits(keys, 1e-3, span=2**18, bits=8, max_rate=1e-3), keys
      ... )
      >>> offset.shape, keep.shape, overflow.shape
      ((4, 393), (4, 393), (4,))
    """
    shape = (
        geometric.words_per_gap(span, max_rate) + 1,
        geometric.capacity(span, max_rate) + 1,
    )

    def draw(key):
        words = jax.random.bits(key, shape, jnp.uint32)
        return *geometric.positions(words[1:], span, max_rate), words[0, :-1]

    offset, overflow, mark = jax.vmap(draw)(keys)
    rate = jnp.asarray(rate)
    scale = threshold.WORD / max_rate if max_rate else 0.0
    overflow = overflow | threshold.unreachable(rate, scale, max_rate)
    if rate.ndim:
        rate = rate[offset % bits]
    kept = threshold.below(mark, rate, scale) | (rate >= np.float32(max_rate))
    return offset, (offset < span) & kept & (rate > 0), overflow
