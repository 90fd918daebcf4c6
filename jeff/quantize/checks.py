"""Fields of settings as they are meant, or one line that names field and value."""

import numbers
from collections.abc import Sequence
from typing import Any

__all__ = ["flag", "integer", "number", "word"]


def integer(value: Any, name: str) -> int:
    """`value` as an int, if it is a whole number of Python or NumPy.

    Args:
      value: What was given.
      name: What to call it in an error.

    Returns:
      The same number as a plain int, which hashes and prints as such.

    Raises:
      TypeError: If it is none; a float such as ``4.0`` and a bool are not.

    Examples:
      >>> integer(4.0, "bits")
      Traceback (most recent call last):
        ...
      TypeError: bits must be an integer, got 4.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def number(value: Any, name: str) -> float:
    """`value` as a float, if it is a real number of Python or NumPy.

    Args:
      value: What was given.
      name: What to call it in an error.

    Returns:
      The same number as a plain float.

    Raises:
      TypeError: If it is none; a bool is not.

    Examples:
      >>> number("0.5", "smoothing")
      Traceback (most recent call last):
        ...
      TypeError: smoothing must be a number, got '0.5'
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """`value`, if it is a bool.

    Args:
      value: What was given.
      name: What to call it in an error.

    Returns:
      `value`.

    Raises:
      TypeError: If it is anything else; 0 and 1 are not bools.

    Examples:
      >>> flag("yes", "symmetric")
      Traceback (most recent call last):
        ...
      TypeError: symmetric must be True or False, got 'yes'
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def word(value: Any, name: str, known: Sequence[str]) -> str:
    """`value`, if it is one of the words that an option takes.

    Args:
      value: What was given.
      name: What to call it in an error.
      known: The words.

    Returns:
      `value`.

    Raises:
      TypeError: If it is not a string.
      ValueError: If it is another word.

    Examples:
      >>> word("min", "share", ("max", "mean"))
      Traceback (most recent call last):
        ...
      ValueError: share must be 'max' or 'mean', got 'min'
    """
    if isinstance(value, str) and value in known:
        return value
    listed = " or ".join([", ".join(map(repr, known[:-1])), repr(known[-1])])
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"{name} must be {listed}, got {value!r}")
