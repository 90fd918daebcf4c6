"""Rates and dtypes checked once, early, by name."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import core

__all__ = [
    "check_choice",
    "check_floating",
    "check_scale",
    "check_signed",
    "checked_rate",
    "is_floating",
    "is_known",
    "whole_inverse",
]

_DECODE = " (a stored weight must be decoded first: jeff.decoded)"


def is_known(x: Any) -> bool:
    """Whether the value of `x` can be read now, outside or inside a trace.

    Args:
      x: A number or an array.

    Returns:
      False for a traced array.

    Examples:
      >>> is_known(0.5), is_known(jnp.zeros(2))
      (True, True)
    """
    return not isinstance(x, core.Tracer)


def checked_rate(name: str, rate: Any, *, size: int | None = None) -> Any:
    """A probability, or one per bit, as float32.

    A known rate is rounded to float32 on the host, so that it draws the same faults
    as a traced rate of the same value. A traced rate cannot be checked here: where it
    is drawn with, `threshold.unreachable` sets the record's overflow.

    Args:
      name: The argument's name, for messages.
      rate: A number, or an array of shape ``[]`` or ``[bits]``.
      size: How many rates a vector must hold; ``None`` forbids a vector.

    Returns:
      float32 of the shape of `rate`: a NumPy array, or a traced one.

    Raises:
      TypeError: If the rate is no real number.
      ValueError: If it is NaN, outside [0, 1], of another shape, or positive and below
        the least float32, so that it would draw nothing.

    Examples:
      >>> checked_rate("rate", 0.25)
      array(0.25, dtype=float32)
    """
    known = is_known(rate)
    value = np.asarray(rate) if known else rate
    if not (
        jnp.issubdtype(value.dtype, jnp.floating)
        or jnp.issubdtype(value.dtype, jnp.integer)
    ):
        raise TypeError(f"{name} must be a real number in [0, 1], got {rate!r}")
    if value.shape != () and value.shape != (size,):
        expected = "one number" if size is None else f"one number or {size}"
        raise ValueError(f"{name} must be {expected}, got shape {value.shape}")
    if known and not (np.all(value >= 0) and np.all(value <= 1)):  # NaN fails too
        raise ValueError(f"{name} must be in [0, 1], got {rate}")
    if not known:
        return value.astype(np.float32)
    with np.errstate(under="ignore"):
        rounded = value.astype(np.float32)
    if np.any((value > 0) & (rounded == 0)):
        raise ValueError(f"{name} must be 0 or a float32 above 0, got {rate}")
    return rounded


def whole_inverse(rate: Any, *, scale: float = 1.0) -> np.float32:
    """The rate that drawing an integer below ``int(scale / rate)`` really gives.

    What the published program of FTT-NAS does (`reference_quirks`): a rate of at least
    the one asked for, and 1 for every rate above one half (with a scale of 1).

    Args:
      rate: Probability in [0, 1], known.
      scale: Numerator.

    Returns:
      ``scale / int(scale / rate)``, and 0 for 0.

    Raises:
      ValueError: If the rate is traced.

    Examples:
      >>> print(round(float(whole_inverse(0.056)), 4))
      0.0588
    """
    if not is_known(rate):
        raise ValueError("rate must be known with reference_quirks, got a traced value")
    # From the shortest decimal: float32(0.08) is a little above 0.08.
    decimal = float(str(np.float32(rate)))
    return np.float32(scale / int(scale / decimal) if decimal > 0 else 0.0)


def check_scale(name: str, value: Any) -> None:
    """Refuses a standard deviation that is negative or not finite.

    Args:
      name: The argument's name, for messages.
      value: A number; a traced one cannot be checked.

    Raises:
      TypeError: If it is no real number.
      ValueError: If it is negative, infinite or NaN.

    Examples:
      >>> check_scale("sigma", 0.1)
    """
    if not is_known(value):
        return
    array = np.asarray(value)
    if array.shape or not (
        jnp.issubdtype(array.dtype, jnp.floating)
        or jnp.issubdtype(array.dtype, jnp.integer)
    ):
        raise TypeError(f"{name} must be one real number, got {value!r}")
    if not (math.isfinite(float(array)) and float(array) >= 0):
        raise ValueError(f"{name} must be finite and at least 0, got {value}")


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuses a word that is not one of a few.

    Args:
      name: The argument's name, for messages.
      value: What was given.
      choices: What may be given.

    Raises:
      ValueError: If `value` is none of `choices`.

    Examples:
      >>> check_choice("saturate", "paper", ("paper", "twos_complement"))
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def check_floating(name: str, x: Any) -> None:
    """Refuses an array that is not of real floating numbers.

    Args:
      name: What to call it in the message.
      x: An array, or its shape and dtype.

    Raises:
      TypeError: If its dtype is not floating.

    Examples:
      >>> check_floating("x", jnp.zeros(2))
    """
    if not is_floating(x):
        raise TypeError(f"{name} must be floating, got {x.dtype}{_DECODE}")


def check_signed(name: str, x: Any) -> None:
    """Refuses an array whose values have no sign, such as codes with a zero point.

    Args:
      name: What to call it in the message.
      x: An array, or its shape and dtype.

    Raises:
      TypeError: If its dtype is neither floating nor of signed integers.

    Examples:
      >>> check_signed("x", jnp.zeros(2, jnp.int8))
    """
    if not is_floating(x) and not jnp.issubdtype(x.dtype, jnp.signedinteger):
        raise TypeError(
            f"{name} must be floating or of signed integers, got {x.dtype}{_DECODE}"
        )


def is_floating(x: Any) -> bool:
    """Whether an array is of real floating numbers.

    Args:
      x: An array, or its shape and dtype.

    Returns:
      Whether its dtype is floating.

    Examples:
      >>> is_floating(jnp.zeros(2, jnp.bfloat16))
      True
    """
    return jnp.issubdtype(x.dtype, jnp.floating)
