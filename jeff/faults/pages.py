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

import itertools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.faults import geometric, threshold
from jeff.faults.threefry import fold_in_each, random_rows

__all__ = ["SPANS", "Hits", "Paging", "hits", "page_keys", "paging"]

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


def page_keys(keys: jax.Array, name: str, counts: Sequence[int]) -> jax.Array:
    """Keys of all pages of several arrays, one array after another.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      name: What is drawn with them.
      counts: Number of pages of each.

    Returns:
      Keys, ``[sum(counts)]``: ``fold_in(named_key(key, name), page)``.

    Examples:
      >>> from jeff.prng import named_key
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> pages = jax.jit(lambda keys: page_keys(keys, "sparse", (3, 2)))(keys)
      >>> pages.shape, bool(pages[4] == named_key(keys[1], "sparse", 1))
      ((5,), True)
    """
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts])
    crc = np.full(len(owner), zlib.crc32(name.encode()), np.uint32)
    return fold_in_each(keys[owner], jnp.asarray(crc), jnp.asarray(number))


class Hits(NamedTuple):
    """The hits of several pages, in the places of one flat buffer.

    Attributes:
      groups: Numbers of pages, and the places of each of them.
      offset: int32 ``[places]``: positions in the page; its span where there is none.
      keep: bool ``[places]``: whether it is a hit.
      overflow: bool ``[pages]``: whether a page has too few places, or the rate cannot
        be drawn (`threshold.unreachable`).
    """

    groups: tuple[tuple[int, int], ...]
    offset: jax.Array
    keep: jax.Array
    overflow: jax.Array


def hits(
    keys: jax.Array,
    rate: Any,
    used: Sequence[int],
    *,
    span: int,
    bits: int,
    max_rate: float,
) -> Hits:
    """The hits of pages: drawn at `max_rate`, each kept with ``rate / max_rate``.

    Args:
      keys: Keys of the pages, ``[pages]``.
      rate: float32 ``[]`` or one per bit, ``[bits]``; may be traced. ``None``: the
        largest rate.
      used: How many positions are wanted of every page, the first ones: what is behind
        them is not drawn. Pages of which as much is wanted share a group best if they
        follow one another.
      span: Positions in a page.
      bits: Positions per element.
      max_rate: Known bound of the rate, which sets the number of places.

    Returns:
      The hits.

    Raises:
      ValueError: If `max_rate` is below the resolution.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> drawn = jax.eval_shape(
      ...     lambda keys: hits(
      ...         keys, 1e-3, [2**18] * 4, span=2**18, bits=8, max_rate=1e-3
      ...     ).offset,
      ...     keys,
      ... )
      >>> drawn.shape
      (1576,)
    """
    # Row 0 of a page's words decides which hits are kept, the others are the digits.
    rows, first = geometric.words_per_gap(span, max_rate) + 1, int(rate is None)
    whole = geometric.capacity(span, max_rate) + 1
    groups = tuple(
        (len(list(own)), geometric.capacity(wanted, max_rate) + 1)
        for wanted, own in itertools.groupby(used, lambda n: min(span, _rounded(n)))
    )
    words = random_rows(keys, (rows, whole), first, groups)
    offset, overflow = geometric.positions(
        words[1 - first :], span, max_rate, used=used, groups=groups
    )
    if rate is None:
        return Hits(groups, offset, offset < span, overflow)
    rate = jnp.asarray(rate)
    scale = threshold.WORD / max_rate if max_rate else 0.0
    overflow = overflow | threshold.unreachable(rate, scale, max_rate)
    if rate.ndim:
        rate = rate[offset % bits]
    kept = threshold.below(words[0], rate, scale) | (rate >= np.float32(max_rate))
    return Hits(groups, offset, (offset < span) & kept & (rate > 0), overflow)


def _rounded(number: int) -> int:
    """The least power of two that is not below: few lengths of buffers."""
    return 1 << max(0, int(number) - 1).bit_length()
