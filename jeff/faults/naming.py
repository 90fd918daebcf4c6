"""Errors that say what they are about."""

import contextlib
from collections.abc import Iterator

__all__ = ["naming"]


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors from inside the block name what it was about.

    A plain `TypeError` or `ValueError` begins with it; any other error, subclasses
    included, stays the object it is and carries it as a note.

    Args:
      what: Such as ``"leaf 'w'"``.

    Raises:
      TypeError: As from inside.
      ValueError: As from inside.

    Examples:
      >>> with naming("leaf 'w'"):
      ...     raise ValueError("rate must be in [0, 1], got 2")
      Traceback (most recent call last):
      ValueError: leaf 'w': rate must be in [0, 1], got 2
    """
    try:
        yield
    except Exception as error:
        if type(error) not in (TypeError, ValueError):
            error.add_note(f"in {what}")
            raise
        raise type(error)(f"{what}: {error}") from error
