"""The compiled part of sampling: arrays of one kind, drawn together.

Sparse arrays are of one kind if their pages have one span, others if they have one
size. What is drawn for an array depends on its own key and size only.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jeff.faults import pages, rates
from jeff.faults.bit_planes import bit_planes
from jeff.faults.method import UNITS, Rate
from jeff.faults.sparse import sparse_masks, sparse_words
from jeff.faults.threshold import below, unreachable
from jeff.prng import named_key
from pallas_kernels import threefry

__all__ = ["Array", "Kind", "draw_each", "draw_masks", "draw_words", "kind_of"]


class Array(NamedTuple):
    """What is to be drawn for one array.

    Attributes:
      size: Number of elements.
      bits: Positions per element.
      method: Name of the sampler.
    """

    size: int
    bits: int
    method: str


class Kind(NamedTuple):
    """What arrays have in common that are drawn together.

    Attributes:
      method: Name of the sampler.
      bits: Positions per element.
      extent: Span of a page if sparse, else number of elements.
    """

    method: str
    bits: int
    extent: int


def kind_of(array: Array) -> Kind:
    """The kind of an array.

    Args:
      array: What is to be drawn.

    Returns:
      Its kind.

    Examples:
      >>> kind_of(Array(1000, 8, "sparse")), kind_of(Array(1000, 8, "dense"))
      (Kind(method='sparse', bits=8, extent=16384), Kind(method='dense', bits=8, extent=1000))
    """  # noqa: E501
    sparse = array.method == "sparse"
    extent = pages.paging(array.size, array.bits).span if sparse else array.size
    return Kind(array.method, array.bits, extent)


def draw_each(
    draw: Callable[..., Any],
    keys: Sequence[jax.Array],
    arrays: Sequence[Array],
    settled: Sequence[Rate],
) -> list[Any]:
    """Draws for arrays of all kinds, those of one kind together.

    Args:
      draw: `draw_words` or `draw_masks`, with its own last argument given.
      keys: A key per array.
      arrays: What is to be drawn.
      settled: The rate of each.

    Returns:
      What `draw` gives for each array, in order; a traced rate that the method cannot
      draw counts as overflow.

    Raises:
      ValueError: If there is not one key per array.
    """
    if len(keys) != len(arrays):
        raise ValueError(f"{len(keys)} keys for {len(arrays)} arrays")
    groups: dict[Kind, list[int]] = {}
    for i, array in enumerate(arrays):
        groups.setdefault(kind_of(array), []).append(i)
    results: list[Any] = [None] * len(arrays)
    for kind, members in groups.items():
        rate = settled[members[0]]
        drawn = draw(
            jnp.stack([keys[i] for i in members]),
            None if kind.method == "sparse" and _is_top(rate) else rate.value,
            kind=kind,
            sizes=tuple(arrays[i].size for i in members),
            # Only sparse buffers depend on the largest rate: one trace for the others.
            top=rate.top if kind.method == "sparse" else None,
        )
        over = _unreachable(kind.method, rate)
        for i, (hit, other, short) in zip(members, drawn, strict=True):
            results[i] = hit, other, short if over is None else short | over
    return results


def _is_top(rate: Rate) -> bool:
    """Whether all bits are known to have the largest rate: no hit is thinned."""
    known = rate.top is not None and rates.is_known(rate.value)
    return known and bool(np.all(rate.value == np.float32(rate.top)))


def _unreachable(method: str, rate: Rate) -> jax.Array | None:
    """Whether a traced rate cannot be drawn; a known one was checked, pages check."""
    if method == "sparse" or rates.is_known(rate.value):
        return None
    top = 1.0 if rate.top is None else rate.top
    return unreachable(rate.value, UNITS[method], top)


@functools.partial(jax.jit, static_argnames=("kind", "sizes", "top", "share"))
def draw_words(
    keys: jax.Array,
    rate: Any,
    *,
    kind: Kind,
    sizes: tuple[int, ...],
    top: float | None,
    share: float | None,
) -> list[tuple[jax.Array, jax.Array | None, jax.Array]]:
    """Words of hit bits.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      rate: float32 ``[]`` or ``[bits]``; ``None``, for sparse kinds: `top`.
      kind: The kind of all of them.
      sizes: Number of words of each.
      top: Largest rate, for sparse kinds.
      share: Probability that a hit bit draws a 1, or ``None``.

    Returns:
      Per array ``(word, ones, overflow)``, the words flat.
    """
    bits = kind.bits
    width = 8 if bits <= 8 else 16 if bits <= 16 else 32
    dtype = jnp.dtype(f"uint{width}")
    if kind.method == "sparse":
        assert top is not None
        if rate is not None and jnp.ndim(rate):
            rate = jnp.broadcast_to(rate, (bits,))
        return sparse_words(
            keys, rate, sizes, bits=bits, top=top, share=share, dtype=dtype
        )

    every = jnp.broadcast_to(rate, (bits,))

    def draw(key):
        size = kind.extent
        if kind.method == "bit_plane":
            word = bit_planes(key, jnp.pad(every, (0, width - bits)), size, width)
        else:
            word = _dense_words(named_key(key, "dense"), every, size, bits, dtype)
        if share is None:
            return word, None
        shares = jnp.full(bits, share, jnp.float32)
        key_ones = named_key(key, "ones")
        return word, word & _dense_words(key_ones, shares, size, bits, dtype)

    word, ones = jax.vmap(draw)(keys)
    return _unstacked(word, ones, len(sizes))


@functools.partial(jax.jit, static_argnames=("kind", "sizes", "top", "values"))
def draw_masks(
    keys: jax.Array,
    rate: Any,
    *,
    kind: Kind,
    sizes: tuple[int, ...],
    top: float | None,
    values: Callable[[jax.Array, tuple[int, ...]], jax.Array] | None,
) -> list[tuple[jax.Array, jax.Array | None, jax.Array]]:
    """Masks of hit elements, and values of the hits.

    Args:
      keys: Keys of the arrays, ``[arrays]``.
      rate: float32 ``[]``; ``None``, for sparse kinds: `top`.
      kind: The kind of all of them, with one position per element.
      sizes: Number of elements of each.
      top: Largest rate, for sparse kinds.
      values: ``values(key, shape)``, or ``None``.

    Returns:
      Per array ``(hit, value, overflow)``, flat.
    """
    if kind.method == "sparse":
        assert top is not None
        return sparse_masks(keys, rate, sizes, top=top, values=values)

    def draw(key):
        size = kind.extent
        if kind.method == "bit_plane":
            word = bit_planes(key, rate, -(-size // 32), 32)
            lane = jnp.arange(32, dtype=jnp.uint32)
            hit = ((word[:, None] >> lane) & jnp.uint32(1)).reshape(-1)[:size] == 1
        else:
            own = threefry.unrolled(named_key(key, "dense", 0))
            word = jax.random.bits(own, (size,), jnp.uint32)
            hit = below(word, rate)
        if values is None:
            return hit, None
        value = values(named_key(key, "value"), (size,))
        return hit, jnp.where(hit, value, jnp.zeros_like(value))

    hit, value = jax.vmap(draw)(keys)
    return _unstacked(hit, value, len(sizes))


def _unstacked(drawn, other, count):
    none = jnp.zeros((), bool)
    return [(drawn[i], None if other is None else other[i], none) for i in range(count)]


def _dense_words(key, rate, size, bits, dtype):
    keys = jax.vmap(lambda bit: jax.random.fold_in(key, bit))(jnp.arange(bits))
    count = threefry.padded(size)

    def add_bit(bit, word):
        hit = below(threefry.words(keys[bit], count), rate[bit]).astype(dtype)
        return word | (hit << jnp.asarray(bit, dtype))

    start = threefry.zeros(key, (count,), dtype)
    return lax.fori_loop(0, bits, add_bit, start)[:size]
