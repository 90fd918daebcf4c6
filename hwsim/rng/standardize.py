"""From centred integers to fixed-point normals: one constant multiplication."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Scale", "scale_to_unit", "standardize"]

_MULTIPLIER_BITS = 16


class Scale(NamedTuple):
    """A factor ``multiplier / 2^shift``.

    Attributes:
      multiplier: Positive integer of at most 16 bits.
      shift: Number of places, at least 1.
    """

    multiplier: int
    shift: int


def scale_to_unit(deviation: float, fraction_bits: int) -> Scale:
    """The factor that makes a standard deviation ``2^fraction_bits``.

    The multiplier has 16 bits, so the factor is right to ``2^-16`` of itself.

    Args:
      deviation: Standard deviation of the integers that will be scaled.
      fraction_bits: Binary places of the result.

    Returns:
      The factor.

    Raises:
      ValueError: If `fraction_bits` needs more than the multiplier has.

    Examples:
      >>> scale_to_unit(512.0, 12)
      Scale(multiplier=32768, shift=12)
    """
    exact = 2.0**fraction_bits / deviation
    shift = _MULTIPLIER_BITS - 1 - math.floor(math.log2(exact))
    if round(exact * 2**shift) == 2**_MULTIPLIER_BITS:
        shift -= 1
    if shift < 1:
        raise ValueError(
            f"fraction_bits={fraction_bits} is too fine for integers whose standard "
            f"deviation is {deviation:.3g}"
        )
    return Scale(round(exact * 2**shift), shift)


def standardize(centred: jax.Array, scale: Scale) -> jax.Array:
    """``round(centred * multiplier / 2^shift)``, halves up.

    Args:
      centred: Integers below ``2^15`` in magnitude, int32 of any shape.
      scale: The factor.

    Returns:
      Fixed-point codes, int32 of the same shape.

    Examples:
      >>> print(standardize(jnp.array([-512, 0, 512]), scale_to_unit(512.0, 12)))
      [-4096     0  4096]
    """
    half = jnp.int32(1 << (scale.shift - 1))
    return (centred * jnp.int32(scale.multiplier) + half) >> jnp.int32(scale.shift)
