"""Codes around zero, int8, as against the unsigned ones of `jeff.quantize.QTensor`."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["check_signed", "signed", "unsigned"]


def check_signed(codes: np.ndarray, bits: int, name: str) -> None:
    """Refuses what are no signed codes of that width.

    Args:
      codes: The array.
      bits: Width of a code.
      name: What to call it.

    Raises:
      ValueError: If it is not int8, or a number is out of range.

    Examples:
      >>> check_signed(np.array([8], np.int8), 4, "weight")
      Traceback (most recent call last):
        ...
      ValueError: weight is from 8 to 8, which are no codes of 4 bits
    """
    half = 2 ** (bits - 1)
    if codes.dtype != np.int8:
        raise ValueError(f"{name} must be int8, got {codes.dtype}")
    if codes.size and not -half <= codes.min() <= codes.max() < half:
        raise ValueError(
            f"{name} is from {codes.min()} to {codes.max()}, which are no codes of "
            f"{bits} bits"
        )


def unsigned(codes: jax.Array, bits: int) -> jax.Array:
    """Signed codes, int8, as unsigned ones, uint8.

    Examples:
      >>> print(unsigned(jnp.array([-8, 7], jnp.int8), 4))
      [ 0 15]
    """
    return (codes.astype(jnp.int16) + 2 ** (bits - 1)).astype(jnp.uint8)


def signed(codes: jax.Array, bits: int) -> jax.Array:
    """Unsigned codes, uint8, as signed ones, int8.

    Examples:
      >>> print(signed(jnp.array([0, 15], jnp.uint8), 4))
      [-8  7]
    """
    return (codes.astype(jnp.int16) - 2 ** (bits - 1)).astype(jnp.int8)
