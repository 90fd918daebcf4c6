"""Fields of a ``config.json``: their types, before anything is computed with them."""

from collections.abc import Mapping
from typing import Any

__all__ = ["check_fields", "section"]

_KINDS = {
    "an int": lambda v: type(v) is int,
    "a number": lambda v: type(v) in (int, float),
    "a bool": lambda v: type(v) is bool,
    "a string": lambda v: isinstance(v, str),
    "a list of ints": lambda v: _listed(v, lambda one: type(one) is int),
    "a list of strings": lambda v: _listed(v, lambda one: isinstance(one, str)),
    "a list of numbers": lambda v: _listed(v, lambda one: type(one) in (int, float)),
    "a list of pairs of ints": lambda v: _listed(
        v, lambda one: _listed(one, lambda n: type(n) is int) and len(one) == 2
    ),
    "an int or a list of ints": lambda v: (
        type(v) is int or _listed(v, lambda one: type(one) is int)
    ),
}


def check_fields(
    config: Mapping[str, Any], kinds: Mapping[str, str], *, within: str = ""
) -> None:
    """Refuses fields of another type than the one they are read as.

    Args:
      config: The fields; what is absent or null is not looked at.
      kinds: By name what a field must be: ``"an int"``, ``"a number"``, ``"a bool"``,
        ``"a string"``, ``"a list of ints"`` (or ``strings``, ``numbers``, ``pairs of
        ints``), or ``"an int or a list of ints"``.
      within: The object that the fields stand in, for the message.

    Raises:
      ValueError: If any field is of another type; all are named, with their values.

    Examples:
      >>> check_fields({"layers": 2, "bias": None}, {"layers": "an int"})
      >>> check_fields({"width": "64"}, {"width": "an int"}, within="vision_config")
      Traceback (most recent call last):
        ...
      ValueError: vision_config.width must be an int, got '64'
    """
    prefix = f"{within}." if within else ""
    wrong = [
        f"{prefix}{name} must be {kind}, got {config[name]!r}"
        for name, kind in kinds.items()
        if config.get(name) is not None and not _KINDS[kind](config[name])
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


def section(
    config: Mapping[str, Any], name: str, *, within: str = ""
) -> Mapping[str, Any]:
    """An object inside of a configuration.

    Args:
      config: The configuration.
      name: The field that holds the object.
      within: The object that the field stands in, for the message.

    Returns:
      The object; an empty one if it is absent or null.

    Raises:
      ValueError: If the field holds something else.

    Examples:
      >>> section({"vision_config": {"depth": 2}}, "vision_config")
      {'depth': 2}
      >>> section({"vision_config": "x"}, "vision_config")
      Traceback (most recent call last):
        ...
      ValueError: vision_config must be an object, got 'x'
    """
    found = config.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        prefix = f"{within}." if within else ""
        raise ValueError(f"{prefix}{name} must be an object, got {found!r}")
    return found


def _listed(value: Any, fits: Any) -> bool:
    return isinstance(value, list | tuple) and all(fits(one) for one in value)
