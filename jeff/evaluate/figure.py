"""Plots as plain data: what to draw, not how (the command line draws it)."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np

__all__ = ["Figure", "Kind", "Scale", "Series"]

Kind = Literal["lines", "bars", "histograms", "scatter", "heatmap"]
Scale = Literal["linear", "log"]


@dataclasses.dataclass(frozen=True)
class Series:
    """One line, color of bars, histogram or cloud of points, or one row of a heat map.

    Arrays of any kind are accepted and kept as tuples of Python numbers.

    Attributes:
      name: Entry in the legend.
      x: Positions, ``[n]``: numbers; for bars the categories' names; for a histogram
        its ``n + 1`` bin edges.
      y: Values, ``[n]``; for a histogram the counts.
      low: Lower ends of intervals around `y`, ``[n]``, or ``None``.
      high: Upper ends, ``[n]``, or ``None``.

    Raises:
      ValueError: If a number is not finite, or only one of `low` and `high` is given.

    Examples:
      >>> Series("loss", [1, 2], [0.5, 0.25]).y
      (0.5, 0.25)
    """

    name: str
    x: tuple[Any, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self):
        """Converts arrays to tuples and checks the numbers."""
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r}: give both low and high, or none")
        for field in ("x", "y", "low", "high"):
            values = getattr(self, field)
            if values is not None:
                object.__setattr__(self, field, _plain(values, f"{self.name}.{field}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One plot.

    Attributes:
      kind: ``"lines"``, ``"bars"`` (grouped by category), ``"histograms"``
        (overlaid), ``"scatter"``, or ``"heatmap"``: a row per series, its values as
        colors in columns at whole numbers `x`, blank where it has none.
      title: Heading: what the reader should see.
      x_label: Name of the horizontal axis, with its unit.
      y_label: Name of the vertical axis, or of a heat map's colors, with its unit.
      series: What is drawn, in the order of the legend.
      caption: A sentence below the plot.
      x_scale: ``"linear"`` or ``"log"``.
      y_scale: ``"linear"`` or ``"log"``.

    Raises:
      ValueError: If the kind or a scale is unknown, nothing is to be drawn, lengths do
        not fit the kind, the categories of bars differ between series, columns of a
        heat map are not whole, or a logarithmic axis meets a number that is not
        positive.

    Examples:
      >>> Figure(
      ...     kind="bars",
      ...     title="Loss by method",
      ...     x_label="method",
      ...     y_label="loss increase (nats)",
      ...     series=[Series("W3", ["rtn", "mbq"], [0.3, 0.1])],
      ... ).series[0].x
      ('rtn', 'mbq')
    """

    kind: Kind
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    caption: str = ""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"

    def __post_init__(self):
        """Checks that the parts fit together."""
        object.__setattr__(self, "series", tuple(self.series))
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}: {self.kind!r}")
        for axis, scale in (("x_scale", self.x_scale), ("y_scale", self.y_scale)):
            if scale not in get_args(Scale):
                raise ValueError(f"{axis} must be one of {get_args(Scale)}: {scale!r}")
        if not self.series or not all(s.y for s in self.series):
            raise ValueError(f"figure {self.title!r} has nothing to draw")
        for s in self.series:
            self._check(s)

    def _check(self, s: Series) -> None:
        where = f"series {s.name!r} of figure {self.title!r}"
        expected = len(s.y) + (self.kind == "histograms")
        if len(s.x) != expected:
            raise ValueError(f"{where}: x has {len(s.x)} entries, needs {expected}")
        for field, values in (("low", s.low), ("high", s.high)):
            if values is not None and len(values) != len(s.y):
                raise ValueError(
                    f"{where}: {field} has {len(values)} entries, needs {len(s.y)}"
                )
        texts = [isinstance(x, str) for x in s.x]
        if self.kind == "bars":
            if not all(texts) or s.x != self.series[0].x:
                raise ValueError(f"{where}: bars need the same named categories as x")
        elif any(texts):
            raise ValueError(f"{where}: x must be numbers for {self.kind!r}")
        elif self.kind == "heatmap":
            if not all(float(x).is_integer() for x in s.x) or len(set(s.x)) < len(s.x):
                raise ValueError(f"{where}: columns must be different whole numbers")
        elif self.x_scale == "log" and min(s.x) <= 0:
            raise ValueError(f"{where}: a logarithmic x axis needs x > 0")
        # Bars and counts may be zero on a logarithmic axis; points on it may not.
        drawn = s.y + (s.low or ())
        if self.y_scale == "log" and self.kind in ("lines", "scatter"):
            if min(drawn) <= 0:
                raise ValueError(f"{where}: a logarithmic y axis needs y > 0")


def _plain(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    """Python numbers or strings of any one-dimensional sequence."""
    items = np.asarray(list(values)).tolist()
    for i, item in enumerate(items):
        if isinstance(item, str):
            continue
        if not isinstance(item, (int, float)) or not math.isfinite(item):
            raise ValueError(f"{name}[{i}] is not a finite number: {item!r}")
    return tuple(items)
