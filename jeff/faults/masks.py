"""Exact random masks: every bit or element hit independently (`jeff.faults.method`).

Each sampler draws independent bits whose rate is right to `threshold.RATE_TOLERANCE`; a
rate that a method cannot reach is an error. `choose` takes a method from the largest
rate and the size only, so a draw never depends on chunks, maps or devices; different
methods draw different faults.

**Nested in rate** (common random numbers): for one key, one `max_rate` and one shape,
the hits at a lower rate are a subset of those at a higher one. Dense and bit-plane
masks compare the same random numbers with every rate. Sparse masks draw the hits of
`max_rate` and keep each with probability ``rate / max_rate``; without `max_rate` they
are nested only in themselves, so a sweep must give it. Rates are rounded to float32.

**Several arrays at once**: ``*_each`` takes a key per array and gives what the function
without it gives for each of them, from one draw per size of page (`jeff.faults.pages`).
Keys of JAX's default generator (threefry) are meant: maps over ``rbg`` keys draw other
numbers than loops, as JAX documents.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jeff.faults import method as methods
from jeff.faults import sampling

__all__ = ["Mask", "marked", "marked_each", "mask"]


class Mask(NamedTuple):
    """Elements that are hit.

    Attributes:
      hit: bool, of the shape asked for.
      overflow: bool ``[]``: more hits than a static buffer holds (probability below
        1e-12 for every page), or a traced rate that cannot be drawn: NaN, negative,
        above `max_rate` (or 1), or positive and rounded to 0. The mask is then wrong.
    """

    hit: jax.Array
    overflow: jax.Array


def mask(
    key: jax.Array,
    rate: Any,
    shape: tuple[int, ...],
    *,
    method: str | None = None,
    max_rate: float | None = None,
) -> Mask:
    """Elements hit independently with one probability.

    Args:
      key: A JAX key.
      rate: Probability in [0, 1]; may be traced.
      shape: Shape of the mask.
      method: One of `method.METHODS`; ``None`` takes `choose`, or ``"dense"`` if the
        rate is traced and there is no `max_rate`.
      max_rate: Largest rate of a sweep, known; ``None``: the rate itself.

    Returns:
      The mask, and whether it overflowed.

    Raises:
      TypeError: If a rate is no real number.
      ValueError: If a rate is outside [0, 1], above `max_rate`, not reachable by the
        method, or traced without what the method needs.

    Examples:
      >>> drawn = mask(jax.random.key(0), 0.5, (6,))
      >>> print(drawn.hit, drawn.overflow)
      [ True False  True  True  True  True] False
    """
    return marked_each([key], rate, [shape], None, method=method, max_rate=max_rate)[0][
        0
    ]


def marked(
    key: jax.Array,
    rate: Any,
    shape: tuple[int, ...],
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    *,
    method: str | None = None,
    max_rate: float | None = None,
) -> tuple[Mask, jax.Array]:
    """A mask, and a random value for every hit.

    Values are drawn for the hits only if the mask is sparse. For one key and one
    `max_rate`, a hit has the same value at every rate.

    Args:
      key: A JAX key.
      rate: As in `mask`.
      shape: Shape of the mask.
      draw: ``draw(key, shape) -> values``, independent for every element. Functions
        that compare equal share one compiled program.
      method: As in `mask`.
      max_rate: As in `mask`.

    Returns:
      The mask, and the values, of `shape` and 0 where there is no hit.

    Raises:
      TypeError: As in `mask`.
      ValueError: As in `mask`.

    Examples:
      >>> drawn, value = marked(jax.random.key(0), 0.5, (6,), jax.random.bits)
      >>> print(drawn.hit, value > 0)
      [ True False  True  True  True  True] [ True False  True  True  True  True]
    """
    return marked_each([key], rate, [shape], draw, method=method, max_rate=max_rate)[0]


def marked_each(
    keys: Sequence[jax.Array],
    rate: Any,
    shapes: Sequence[tuple[int, ...]],
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array] | None,
    *,
    method: str | None = None,
    max_rate: float | None = None,
) -> list[tuple[Mask, Any]]:
    """`marked` for several arrays.

    Args:
      keys: A key per array.
      rate: As in `mask`, the same for all.
      shapes: A shape per array.
      draw: As in `marked`; ``None`` draws no values.
      method: As in `mask`.
      max_rate: As in `mask`.

    Returns:
      What `marked` gives for each; values are ``None`` if there are none.

    Raises:
      TypeError: As in `mask`.
      ValueError: As in `mask`; also if there is not one key per shape.

    Examples:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> drawn = jax.eval_shape(
      ...     lambda keys: marked_each(keys, 0.1, [(2,), (1, 3)], jax.random.bits), keys
      ... )
      >>> [value.shape for _, value in drawn]
      [(2,), (1, 3)]
    """
    settled = methods.checked(rate, max_rate)
    arrays = [
        sampling.Array(n, 1, methods.method_for(method, settled, n))
        for n in map(math.prod, shapes)
    ]
    draw_masks = functools.partial(sampling.draw_masks, values=draw)
    drawn = sampling.draw_each(draw_masks, keys, arrays, [settled] * len(arrays))
    return [
        (Mask(hit.reshape(s), over), None if value is None else value.reshape(s))
        for (hit, value, over), s in zip(drawn, shapes, strict=True)
    ]
