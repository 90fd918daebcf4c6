"""Which leaves or sites faults hit: by pattern, by predicate, or by name."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jeff import tree

__all__ = ["Where", "chooser", "chosen"]

Where = str | Callable[[str, Any], bool] | Sequence[str]
"""A regular expression (searched for in the name), ``where(name, item) -> bool``, or a
list of names."""


def chooser(where: Where | None) -> Callable[[str, Any], bool] | None:
    """`where` as a predicate.

    Args:
      where: A pattern, a predicate, or names; ``None`` stays ``None``.

    Returns:
      ``choose(name, item) -> bool``, or ``None``.

    Raises:
      TypeError: If it is none of these.
      ValueError: If the pattern is no regular expression.

    Examples:
      >>> choose = chooser(r"conv\\d")
      >>> choose("conv1.kernel", None), choose("head", None)
      (True, False)
    """
    if where is None:
        return None
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(f"where={where!r} is no pattern: {error}") from None
        return lambda name, item: pattern.search(name) is not None
    if callable(where):
        return where
    if isinstance(where, Iterable):
        names = tuple(where)
        if all(isinstance(name, str) for name in names):
            return lambda name, item: name in names
    raise TypeError(
        f"where must be a pattern, a function (name, item) -> bool, or a list of "
        f"names, got {where!r}"
    )


def chosen(
    where: Where | None,
    items: Mapping[str, Any],
    default: Callable[[str, Any], bool],
    what: str,
) -> list[str]:
    """Names of the items that `where` chooses, which must be some.

    Args:
      where: A pattern, a predicate, or names; ``None`` takes `default`.
      items: Items by name.
      default: What ``None`` stands for.
      what: What an item is called, for messages.

    Returns:
      Names, in the order of `items`.

    Raises:
      TypeError: As `chooser`.
      ValueError: If a name is not one of the items, or nothing is chosen; the message
        lists near names.

    Examples:
      >>> chosen(["hed"], {"head": 0, "stem": 1}, lambda name, item: True, "leaf")
      Traceback (most recent call last):
      ValueError: where names 'hed', which is no leaf; nearest: head
    """
    choose = chooser(where) or default
    if where is not None and not isinstance(where, str) and not callable(where):
        for name in where:
            if name not in items:
                raise ValueError(
                    f"where names {name!r}, which is no {what}; "
                    f"{tree.nearest(name, items)}"
                )
    names = [name for name, item in items.items() if choose(name, item)]
    if not names:
        near = tree.nearest(where, items) if isinstance(where, str) else ""
        some = near or f"there are {', '.join(list(items)[:3]) or 'none'}"
        raise ValueError(f"where={where!r} chooses no {what}; {some}")
    return names
