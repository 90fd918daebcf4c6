"""Numbers, counts and probabilities checked early, by name."""

import operator
from typing import Any

import numpy as np

__all__ = ["level", "positive", "probabilities", "rates", "whole"]


def level(value: float) -> float:
    """A confidence level, or an error.

    Args:
      value: A number.

    Returns:
      The number.

    Raises:
      ValueError: If it is not in (0, 1).

    Examples:
      >>> level(0.95)
      0.95
    """
    if not 0 < value < 1:
        raise ValueError(f"level must be in (0, 1): level={value!r}")
    return value


def positive(name: str, value: Any) -> int:
    """A positive whole number, or an error.

    Args:
      name: What to call it.
      value: An integer of Python or NumPy.

    Returns:
      The number.

    Raises:
      TypeError: If it is not an integer.
      ValueError: If it is not positive.

    Examples:
      >>> positive("unit", np.int64(3))
      3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def whole(
    name: str,
    values: Any,
    *,
    least: int = 0,
    most: Any = None,
    size: int | None = None,
) -> np.ndarray:
    """A vector of whole numbers.

    Args:
      name: The argument's name, for messages.
      values: Numbers ``[n]``, ``n >= 1``.
      least: Smallest one allowed.
      most: Largest one allowed, for all or one each; ``None``: no limit.
      size: The `n` required; ``None``: any.

    Returns:
      float64 ``[n]``.

    Raises:
      ValueError: If the shape is another or a number is not allowed.

    Examples:
      >>> whole("trials", [3, 4])
      array([3., 4.])
      >>> whole("events", [1, 5], most=[3, 4])
      Traceback (most recent call last):
        ...
      ValueError: events[1] must be an integer in [0, 4]: 5
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size or (size is not None and array.size != size):
        shape = "[n]" if size is None else f"[{size}]"
        raise ValueError(f"{name} must be {shape}, not of shape {array.shape}")
    limit = np.broadcast_to(np.inf if most is None else np.asarray(most), array.shape)
    good = (array >= least) & (array <= limit) & (array == np.round(array))
    bad = ~(good & np.isfinite(array))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        bound = f">= {least}" if most is None else f"in [{least}, {limit[i]:g}]"
        raise ValueError(f"{name}[{i}] must be an integer {bound}: {array[i]:g}")
    return array


def rates(
    name: str, values: Any, size: int | None = None, *, most: float = 1.0
) -> np.ndarray:
    """A vector of numbers in [0, 1], or from 0 on.

    Args:
      name: The argument's name, for messages.
      values: Numbers ``[n]``.
      size: The `n` required; ``None``: any.
      most: The largest allowed: 1, or infinity, which itself is no number.

    Returns:
      float64 ``[n]``.

    Raises:
      TypeError: If they are no numbers.
      ValueError: If the shape is another or a number is outside; it is named.

    Examples:
      >>> rates("rates", [0, 1], 2)
      array([0., 1.])
      >>> rates("rates", [0.1, 1.5])
      Traceback (most recent call last):
        ...
      ValueError: rates[1] must be in [0, 1], got 1.5
      >>> rates("sigmas", [0.1, 1.5], most=np.inf)
      array([0.1, 1.5])
    """
    where = f"in [0, {most:g}]" if np.isfinite(most) else "finite and at least 0"
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers {where}, got {values!r}") from None
    if array.ndim != 1 or (size is not None and array.size != size):
        shape = "[n]" if size is None else f"[{size}]"
        raise ValueError(f"{name} must be {shape}, not of shape {array.shape}")
    good = (array >= 0) & (array <= most) & np.isfinite(array)
    for i in np.flatnonzero(~good):
        raise ValueError(f"{name}[{i}] must be {where}, got {array[i]}")
    return array


def probabilities(name: str, values: Any, size: int | None = None) -> np.ndarray:
    """A vector of probabilities, divided by its sum.

    Args:
      name: The argument's name, for messages.
      values: Numbers in [0, 1] whose sum is 1 to 1e-6, as of float32 numbers.
      size: How many there must be; ``None``: any number.

    Returns:
      float64, of sum 1.

    Raises:
      ValueError: If the shape is another, a number is outside, or the sum is not 1.

    Examples:
      >>> probabilities("target", [0.25, 0.75])
      array([0.25, 0.75])
    """
    array = rates(name, values, size)
    if not array.size:
        raise ValueError(f"{name} must hold at least one probability")
    if abs(array.sum() - 1) > 1e-6:
        raise ValueError(f"{name} must sum to 1, not to {array.sum()}: {array}")
    return array / array.sum()
