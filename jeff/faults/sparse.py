"""Sparse draws as flat arrays: the hits of pages, put where they belong.

All pages of several arrays are drawn at once, and their hits scattered into one flat
buffer, of which the arrays are stretches.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.faults import geometric, pages
from jeff.faults.threefry import first_columns, random_rows, spread
from jeff.faults.threshold import below

__all__ = ["Drawn", "sparse_masks", "sparse_words"]

Drawn = tuple[jax.Array, jax.Array | None, jax.Array]
"""What hits an array, flat; what comes with it, if asked for; whether it overflowed."""

_MOST = 2**30  # elements of a buffer


def sparse_words(
    keys: jax.Array,
    rate: Any,
    sizes: Sequence[int],
    *,
    bits: int,
    top: float,
    share: float | None,
    dtype: Any,
) -> list[Drawn]:
    """Words of hit bits of arrays whose pages have one span.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      rate: float32 ``[]`` or ``[bits]``; ``None``: `top`.
      sizes: Number of words of each array.
      bits: Positions per word.
      top: Largest rate.
      share: Probability that a hit bit draws a 1, or ``None``.
      dtype: Of the words.

    Returns:
      Per array ``(word, ones, overflow)``.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> def draw(keys):
      ...     return sparse_words(
      ...         keys, None, (100, 9), bits=8, top=0.01, share=None, dtype="uint8"
      ...     )
      >>> [word.shape for word, _, _ in jax.eval_shape(draw, keys)]
      [(100,), (9,)]
    """

    def ones(keys, hits, length):
        word = random_rows(keys, (1, length), 0, hits.groups)[0]
        return below(word, share)

    def filled(hits, start, count, one=None):
        # 32-bit shifts, for CPUs have none of single bytes; unsigned division is cheap.
        offset = hits.offset.astype(jnp.uint32)
        element, low = offset // jnp.uint32(bits), offset % jnp.uint32(bits)
        bit = (jnp.uint32(1) << low).astype(dtype)
        place = jnp.where(hits.keep, start + element.astype(jnp.int32), count)
        # Every position is drawn once at most, so adding bits is joining them.
        words = [jnp.zeros(count, dtype).at[place].add(bit, mode="drop")]
        if one is not None:
            place = jnp.where(one, place, count)
            words.append(jnp.zeros(count, dtype).at[place].add(bit, mode="drop"))
        return words

    beside = {} if share is None else {"ones": ones}
    return _drawn(keys, rate, sizes, bits, top, beside, filled)


def sparse_masks(
    keys: jax.Array,
    rate: Any,
    sizes: Sequence[int],
    *,
    top: float,
    values: Callable[[jax.Array, tuple[int, ...]], jax.Array] | None,
) -> list[Drawn]:
    """Masks of hit elements of arrays whose pages have one span.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      rate: float32 ``[]``; ``None``: `top`.
      sizes: Number of elements of each array.
      top: Largest rate.
      values: ``values(key, shape)``, or ``None``.

    Returns:
      Per array ``(hit, value, overflow)``.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> def draw(keys):
      ...     return sparse_masks(keys, None, (100, 9), top=0.01, values=None)
      >>> [hit.shape for hit, _, _ in jax.eval_shape(draw, keys)]
      [(100,), (9,)]
    """

    def drawn_values(draw, keys, hits, length):
        # What a value is may depend on how many there are: all of a page are drawn.
        own = jax.vmap(lambda key: draw(key, (length,)))(keys)
        own = jnp.pad(own, ((0, 0), (0, 1)))  # the last place is never a hit
        return first_columns(own, hits.groups)

    def filled(hits, start, count, value=None):
        place = jnp.where(hits.keep, start + hits.offset, count)
        masks = [jnp.zeros(count, bool).at[place].set(True, mode="drop")]
        if value is not None:
            none = jnp.zeros(count, value.dtype)
            masks.append(none.at[place].set(value, mode="drop"))
        return masks

    beside = {}
    if values is not None:
        beside["value"] = functools.partial(drawn_values, values)
    return _drawn(keys, rate, sizes, 1, top, beside, filled)


def _drawn(keys, rate, sizes, bits, top, beside, filled) -> list[Drawn]:
    """Draws the hits of all pages, fills flat buffers, and cuts them into arrays."""
    paging = [pages.paging(size, bits) for size in sizes]
    span, counts = paging[0].span, [p.count for p in paging]
    wanted = np.concatenate([_wanted(n, p) for n, p in zip(sizes, paging, strict=True)])
    own = {name: pages.page_keys(keys, name, counts) for name in ("sparse", *beside)}
    length = geometric.capacity(span, top)
    batches = []
    for first, last in _batches(wanted):
        # Pages of which as much is wanted follow one another.
        order = first + np.argsort(-wanted[first:last], kind="stable")
        hits = pages.hits(
            own["sparse"][order], rate, wanted[order] * bits,
            span=span, bits=bits, max_rate=top,
        )  # fmt: skip
        more = [draw(own[name][order], hits, length) for name, draw in beside.items()]
        at = np.cumsum(wanted[first:last]) - wanted[first:last]
        start = spread(jnp.asarray(at[order - first], jnp.int32), hits.groups)
        buffers = filled(hits, start, int(wanted[first:last].sum()), *more)
        overflow = hits.overflow[np.argsort(order)]
        batches.append(_Batch(first, at, buffers, overflow))
    ends = np.cumsum(counts)
    return [
        _array(batches, wanted, end - count, end)
        for count, end in zip(counts, ends, strict=True)
    ]


class _Batch(NamedTuple):
    """Pages in flat buffers: where the pages start in them, and which overflowed."""

    first: int
    starts: np.ndarray
    buffers: list[jax.Array]
    overflow: jax.Array


def _wanted(size, paging):
    """Elements of each page of an array."""
    return np.minimum(paging.elements, size - paging.elements * np.arange(paging.count))


def _batches(wanted):
    """Ranges of pages whose elements 32 bits can count."""
    number = np.cumsum(wanted) // _MOST
    cuts = np.flatnonzero(np.diff(number)) + 1
    return itertools.pairwise([0, *cuts.tolist(), len(wanted)])


def _array(batches, wanted, begin, end) -> Drawn:
    """The array whose pages are those from `begin` up to `end`."""
    parts, over = [], []
    for batch in batches:
        low = max(begin - batch.first, 0)
        high = min(end - batch.first, len(batch.starts))
        if low < high:
            start = int(batch.starts[low])
            count = int(wanted[batch.first + low : batch.first + high].sum())
            parts.append([flat[start : start + count] for flat in batch.buffers])
            over.append(jnp.any(batch.overflow[low:high]))
    flat = [
        own[0] if len(own) == 1 else jnp.concatenate(own)
        for own in zip(*parts, strict=True)
    ]
    return (
        flat[0],
        flat[1] if len(flat) > 1 else None,
        functools.reduce(operator.or_, over),
    )
