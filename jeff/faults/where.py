"""Which leaves or sites faults hit: by pattern, by predicate, or by name."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jeff import base, tree
from jeff.program import Site

__all__ = ["Where", "chooser", "chosen", "is_product", "is_weight"]

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


def is_weight(name: str, leaf: Any) -> bool:
    """Which leaves faults hit unless told otherwise: stored ones, and real numbers.

    Args:
      name: The leaf's name; it does not matter.
      leaf: A leaf of params, or its shape and dtype.

    Returns:
      Whether it is stored, or an array of floating or integer dtype.

    Examples:
      >>> is_weight("w", jnp.zeros(2)), is_weight("on", jnp.array(True))
      (True, False)
    """
    del name
    if base.is_stored(leaf):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)
    )


def is_product(name: str, site: Site) -> bool:
    """Which sites faults hit unless told otherwise: all that compute.

    Args:
      name: The site's name; it does not matter.
      site: A site of a program.

    Returns:
      Whether it is a product or a convolution, and neither a look-up nor a mark.

    Examples:
      >>> from jeff.program import sites
      >>> found = sites(
      ...     lambda p, i: p["table"][i] @ p["head"],
      ...     {"table": jnp.ones((4, 2)), "head": jnp.ones((2, 3))}, jnp.array([1]),
      ... )  # fmt: skip
      >>> [(site.name, is_product(site.name, site)) for site in found]
      [('table', False), ('head', True)]
    """
    del name
    return site.kind not in ("lookup", "mark")
