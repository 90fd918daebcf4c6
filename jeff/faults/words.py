"""Exact random words: every bit hit independently, at one rate or one per position.

Drawn as masks are (`jeff.faults.masks`): nested in rate, several arrays at once.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jeff.faults import method as methods
from jeff.faults import rates, sampling
from jeff.faults.fixed_point import check_bits

__all__ = ["Words", "bit_words", "bit_words_each"]


class Words(NamedTuple):
    """Bits that are hit, as words to XOR or AND with.

    Attributes:
      word: uint8, uint16 or uint32, of the shape asked for.
      overflow: bool ``[]``, as in `masks.Mask`.
      ones: Like `word`: which of the hit bits have drawn a 1; ``None`` if that was not
        asked for.
    """

    word: jax.Array
    overflow: jax.Array
    ones: jax.Array | None = None


def bit_words(
    key: jax.Array,
    rate: Any,
    shape: tuple[int, ...],
    *,
    bits: int,
    one_share: float | None = None,
    method: str | None = None,
    max_rate: float | None = None,
) -> Words:
    """Words whose bits are hit independently, each position at its own rate.

    Args:
      key: A JAX key.
      rate: Probability in [0, 1], or one for every bit, lowest first, ``[bits]``.
      shape: Shape of the words.
      bits: How many low bits of each word may be hit, 1 to 32; the others are 0.
      one_share: Probability that a hit bit draws a 1; ``None`` draws nothing more.
      method: As in `masks.mask`.
      max_rate: As in `masks.mask`; the largest over all bits.

    Returns:
      Words of the narrowest of uint8, uint16 and uint32, and whether they overflowed.

    Raises:
      TypeError: As in `masks.mask`.
      ValueError: As in `masks.mask`; also if `bits` is not from 1 to 32.

    Examples:
      >>> drawn = bit_words(jax.random.key(0), [1.0, 0.0, 1.0], (2,), bits=3)
      >>> print(drawn.word, drawn.word.dtype)
      [5 5] uint8
    """
    return bit_words_each(
        [key], rate, [shape], bits=[bits], one_share=one_share, method=method,
        max_rate=max_rate,
    )[0]  # fmt: skip


def bit_words_each(
    keys: Sequence[jax.Array],
    rate: Any,
    shapes: Sequence[tuple[int, ...]],
    *,
    bits: Sequence[int],
    one_share: float | None = None,
    method: str | None = None,
    max_rate: float | None = None,
) -> list[Words]:
    """`bit_words` for several arrays.

    Args:
      keys: A key per array.
      rate: As in `bit_words`; a vector must fit the bits of every array.
      shapes: A shape per array.
      bits: A number of bits per array.
      one_share: As in `bit_words`.
      method: As in `masks.mask`.
      max_rate: As in `bit_words`.

    Returns:
      What `bit_words` gives for each.

    Raises:
      TypeError: As in `masks.mask`.
      ValueError: As in `bit_words`; also if there is not one key per shape.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> drawn = bit_words_each(keys, 1.0, [(2,), (1,)], bits=[3, 12])
      >>> print(*(words.word for words in drawn))
      [7 7] [4095]
    """
    for b in bits:
        check_bits(b, 1, 32)
    share = None
    if one_share is not None:
        share = float(rates.checked_rate("one_share", one_share))
    settled = [methods.checked(rate, max_rate, bits=b) for b in bits]
    arrays = [
        sampling.Array(
            math.prod(shape), b, methods.method_for(method, r, math.prod(shape) * b)
        )
        for shape, b, r in zip(shapes, bits, settled, strict=True)
    ]
    draw = functools.partial(sampling.draw_words, share=share)
    drawn = sampling.draw_each(draw, keys, arrays, settled)
    return [
        Words(w.reshape(s), over, None if ones is None else ones.reshape(s))
        for (w, ones, over), s in zip(drawn, shapes, strict=True)
    ]
