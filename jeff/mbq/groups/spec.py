"""A balance group named by hand, where the inference is not wanted."""

import dataclasses
from collections.abc import Iterable
from typing import Any

__all__ = ["GroupSpec"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """A group named by hand. Names are those of the first block.

    Attributes:
      sites: Names of the sites that share an input, as `jeff.sites` lists them.
      inspect: Site whose output the candidates are judged by; inferred if ``None``.
      fold: Leaves of the params to divide by the scale, by their paths; inferred if
        ``None``, no folding (and so no scaling) if empty.

    Raises:
      TypeError: If a field is not made of names, or one that lists names is a single
        string.
      ValueError: If there is no site.

    Examples:
      >>> GroupSpec(sites=("gate", "up"), inspect="down").fold is None
      True
      >>> GroupSpec(sites="gate")
      Traceback (most recent call last):
        ...
      TypeError: sites must be a tuple of names, got 'gate'
    """

    sites: tuple[str, ...]
    inspect: str | None = None
    fold: tuple[str, ...] | None = None

    def __post_init__(self):
        """Checks the fields."""
        object.__setattr__(self, "sites", _names(self.sites, "sites"))
        if self.fold is not None:
            object.__setattr__(self, "fold", _names(self.fold, "fold"))
        if self.inspect is not None and not isinstance(self.inspect, str):
            raise TypeError(f"inspect must be a name, got {self.inspect!r}")
        if not self.sites:
            raise ValueError("sites must name at least one site, got ()")


def _names(value: Any, field: str) -> tuple[str, ...]:
    """A sequence of names as a tuple."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{field} must be a tuple of names, got {value!r}")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{field} must be a tuple of names, got {name!r} in it")
    return names
