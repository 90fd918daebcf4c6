"""Which sampler draws a mask: chosen by rate and size, checked against the rate.

| method | how | words for n bits | smallest rate |
| --- | --- | --- | --- |
| ``"sparse"`` | gaps between hits, page by page, then thinning | a few per hit at `max_rate` | 7e-15 |
| ``"bit_plane"`` | 16 words joined along the binary digits of the rate | n / 2 | 8e-3, or a multiple of 2^-16 |
| ``"dense"`` | one 32-bit word per bit, compared with the rate | n | 1.2e-7 |
"""  # noqa: E501

from typing import Any, NamedTuple

import numpy as np

from jeff.faults import geometric, pages, rates
from jeff.faults.bit_planes import PLANES
from jeff.faults.threshold import WORD, reaches

__all__ = ["METHODS", "UNITS", "Rate", "checked", "choose", "method_for"]

METHODS = ("sparse", "bit_plane", "dense")
"""Names of the samplers."""

UNITS = {"bit_plane": 2.0**PLANES, "dense": WORD}
"""How many steps up to 1 the rates of a method have; of sparse ones by `max_rate`."""

_SPARSE = 16  # bits per place in the buffers from which sparse sampling pays


class Rate(NamedTuple):
    """A checked rate and its bound.

    Attributes:
      value: float32 ``[]`` or ``[bits]``, NumPy or traced.
      top: Largest rate that will be asked for; ``None`` if it is not known.
    """

    value: Any
    top: float | None


def choose(max_rate: float, size: int) -> str:
    """The method for a rate and a number of bits.

    Args:
      max_rate: Largest rate that will be asked for.
      size: Number of bits or elements of one array.

    Returns:
      ``"sparse"`` if its buffers are at most 1/16 of the size, or nothing else
      reaches the rate; else ``"dense"``. Bit planes draw fewer words, but in 16 steps
      and to a coarser rate; they are taken only by name.

    Examples:
      >>> choose(1e-3, 10**6), choose(0.1, 10**6), choose(1e-3, 100)
      ('sparse', 'dense', 'dense')
    """
    paging = pages.paging(size)
    places = paging.count * geometric.capacity(paging.span, max_rate)
    if _SPARSE * places <= size:
        return "sparse"
    return "dense" if reaches(max_rate, WORD) else "sparse"


def checked(rate: Any, max_rate: Any, *, bits: int | None = None) -> Rate:
    """A rate with its bound, both checked.

    Args:
      rate: Probability in [0, 1], or with `bits` one for every bit; may be traced.
      max_rate: Largest rate of a sweep, known; ``None``: the rate itself.
      bits: Length of a vector of rates; ``None`` forbids one.

    Returns:
      The rate, rounded to float32, and its bound.

    Raises:
      TypeError: If a rate is no real number.
      ValueError: If a rate is outside [0, 1] or above `max_rate`, or `max_rate` traced.

    Examples:
      >>> checked(0.25, 0.5)
      Rate(value=array(0.25, dtype=float32), top=0.5)
    """
    value = rates.checked_rate("rate", rate, size=bits)
    known = rates.is_known(value)
    highest = float(np.max(value)) if known else None
    top = highest
    if max_rate is not None:
        if not rates.is_known(max_rate):
            raise ValueError("max_rate must be known, got a traced value")
        top = float(rates.checked_rate("max_rate", max_rate))
        if highest is not None and highest > top:
            raise ValueError(f"rate must be at most max_rate={top:.6g}, got {rate}")
    return Rate(value, top)


def method_for(method: str | None, rate: Rate, size: int) -> str:
    """The sampler of one array, checked.

    Args:
      method: One of `METHODS`; ``None`` takes `choose`, or ``"dense"`` if there is no
        known bound of the rate.
      rate: The rate.
      size: Number of bits of the array.

    Returns:
      The name.

    Raises:
      ValueError: If there is no such method, it cannot reach the rate, or it needs a
        bound that is missing.

    Examples:
      >>> method_for(None, checked(0.3, None), 1000)
      'dense'
    """
    if method is None:
        method = "dense" if rate.top is None else choose(rate.top, size)
    rates.check_choice("method", method, METHODS)
    if method == "sparse" and rate.top is None:
        raise ValueError(
            "rate is traced: method 'sparse' needs max_rate, a known bound that sets "
            "the length of its buffer"
        )
    if rates.is_known(rate.value):
        units = UNITS.get(method)
        units = WORD / rate.top if units is None and rate.top else units
        bound = f" with max_rate={rate.top:.6g}" if method == "sparse" else ""
        for value in np.ravel(rate.value):
            if units is not None and not reaches(float(value), units):
                raise ValueError(
                    f"rate {value:.6g} cannot be reached by method {method!r}{bound}, "
                    f"whose rates are multiples of {1 / units:.3g}; take another method"
                )
    return method
