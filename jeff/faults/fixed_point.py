"""Dynamic fixed point with a power-of-two step, chosen from the tensor itself.

With Q bits and the largest magnitude ``m = max(max|x|, 1e-5)`` of the whole tensor::

    k = ceil(log2 m)      S = 2^k      step = 2^(k - (Q-1))
    q(x) = step * clip(round(x / step), low, high)

The exponent comes from `frexp`, so it is exact; every scaling is by a power of two, so
rounding (half to even) is the only inexact operation. Only finite elements count for m;
infinities and NaN, which have no code, stay what they are. Beyond ``S = 2^127``, the
largest range in float32, magnitudes saturate. The codes end

- ``"paper"``: at -2^(Q-1) and +2^(Q-1), which is one code more than Q bits hold;
- ``"twos_complement"``: at -2^(Q-1) and 2^(Q-1) - 1.

References:
  FTT-NAS, arXiv 2003.10375; the "auto" method of its quantizer.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jeff.faults import gradients, rates
from jeff.faults.magnitude import largest_magnitude

__all__ = [
    "SATURATIONS",
    "SMALLEST_MAGNITUDE",
    "FixedPoint",
    "check_bits",
    "code_limits",
    "fixed_point_format",
    "to_fixed_point",
]

SMALLEST_MAGNITUDE = 1e-5
"""Magnitude that an all-zero tensor is given, which keeps the step above 0."""

SATURATIONS = ("paper", "twos_complement")
"""Where codes may end."""

_LARGEST_EXPONENT = 127  # 2^128 is no float32


class FixedPoint(NamedTuple):
    """The format of one tensor.

    Attributes:
      exponent: int32 ``[]``: k, the range is ``2^k``.
      step: float32 ``[]``: ``2^(k - (Q-1))``.
      full_scale: float32 ``[]``: ``S = 2^k``.
    """

    exponent: jax.Array
    step: jax.Array
    full_scale: jax.Array


def fixed_point_format(x: jax.Array, *, bits: int = 8) -> FixedPoint:
    """The format whose range just holds a tensor.

    Args:
      x: Any shape, floating; only its finite elements count.
      bits: Q, from 2 to 16.

    Returns:
      Exponent, step and range; no gradient flows through them.

    Raises:
      TypeError: If `x` is not floating.
      ValueError: If `bits` is not from 2 to 16.

    Examples:
      >>> form = fixed_point_format(jnp.array([0.3, -1.5]))
      >>> print(form.exponent, form.step, form.full_scale)
      1 0.015625 2.0
    """
    rates.check_floating("x", x)
    check_bits(bits)
    largest = largest_magnitude(jax.lax.stop_gradient(x)).astype(jnp.float32)
    largest = jnp.maximum(largest, SMALLEST_MAGNITUDE)
    fraction, exponent = jnp.frexp(largest)
    exponent = exponent - (fraction == 0.5).astype(exponent.dtype)
    exponent = jnp.minimum(exponent, _LARGEST_EXPONENT)
    one = jnp.float32(1.0)
    return FixedPoint(
        exponent=exponent,
        step=jnp.ldexp(one, exponent - (bits - 1)),
        full_scale=jnp.ldexp(one, exponent),
    )


def to_fixed_point(
    x: jax.Array, *, bits: int = 8, saturate: str = "twos_complement"
) -> jax.Array:
    """Rounds a tensor to its own fixed-point format, straight-through.

    The derivative is 1, and 0 where a code has saturated, which happens only to the
    topmost code of two's complement. Infinities and NaN pass unchanged.

    Args:
      x: Any shape, floating.
      bits: Q, from 2 to 16.
      saturate: Where codes end, ``"paper"`` or ``"twos_complement"``.

    Returns:
      The rounded tensor, of the shape and dtype of `x` (computed in float32; bfloat16
      holds codes of up to 9 bits exactly, float16 of up to 12 above its subnormals).

    Raises:
      TypeError: If `x` is not floating.
      ValueError: If `bits` is not from 2 to 16, or `saturate` is another word.

    Examples:
      >>> x = jnp.array([1.0, 0.3, -1.0])
      >>> print(to_fixed_point(x, bits=3))
      [ 0.75  0.25 -1.  ]
      >>> print(to_fixed_point(x, bits=3, saturate="paper"))
      [ 1.    0.25 -1.  ]
    """
    low, high = code_limits(bits, saturate)
    step = fixed_point_format(x, bits=bits).step
    code = jnp.round(x.astype(jnp.float32) / step)
    value = (jnp.clip(code, low, high) * step).astype(x.dtype)
    finite = jnp.isfinite(x)
    passes = (code >= low) & (code <= high) | ~finite
    return gradients.straight_through(jnp.where(finite, value, x), x, passes)


def code_limits(bits: int, saturate: str) -> tuple[float, float]:
    """Lowest and highest code.

    Args:
      bits: Q, from 2 to 16.
      saturate: ``"paper"`` or ``"twos_complement"``.

    Returns:
      ``(low, high)``, whole numbers.

    Raises:
      ValueError: If an argument is not one of these.

    Examples:
      >>> code_limits(8, "twos_complement")
      (-128.0, 127.0)
    """
    check_bits(bits)
    rates.check_choice("saturate", saturate, SATURATIONS)
    top = 2.0 ** (bits - 1)
    return -top, top if saturate == "paper" else top - 1.0


def check_bits(bits: int, low: int = 2, high: int = 16, *, name: str = "bits") -> None:
    """Refuses a number of bits that there cannot be.

    Args:
      bits: What was given.
      low: Smallest number; as a default, that of a fixed-point format.
      high: Largest number.
      name: The argument's name, for messages.

    Raises:
      ValueError: If it is no integer from `low` to `high`, or a bool.

    Examples:
      >>> check_bits(8)
    """
    whole = isinstance(bits, int) and not isinstance(bits, bool)
    if not whole or not low <= bits <= high:
        raise ValueError(
            f"{name} must be an integer from {low} to {high}, got {bits!r}"
        )
