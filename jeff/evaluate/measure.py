"""What a study measured: numbers with their unit, baseline, claim and interval."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jeff.evaluate.figure import Figure

__all__ = ["Measure", "Outcome", "Table"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measured number.

    Scalars of NumPy or JAX are accepted and kept as Python numbers.

    Attributes:
      name: Dotted name, such as ``w3_loss_increase.mbq``; what is before the first dot
        is measured in the same way and is shown together.
      value: The measurement.
      unit: SI unit, ``"fraction"`` for rates and accuracies, ``"bytes"``, ``"nats"``,
        or ``""`` for a pure number.
      baseline: What the measurement is held against, in the same unit.
      paper: What the paper claims, a number in the same unit or a citation in words.
        Never a measurement.
      low: Lower end of the interval around `value`.
      high: Upper end.
      trials: Number of independent observations behind the interval.

    Raises:
      ValueError: If the name is empty, a number is not finite, `value` lies outside
        ``[low, high]``, only one end is given, or `trials` is less than 1.
      TypeError: If something that must be a number is none.

    Examples:
      >>> Measure("accuracy.mbq", 0.91, "fraction", baseline=0.93).value
      0.91
      >>> Measure("accuracy.mbq", float("nan"), "fraction")
      Traceback (most recent call last):
        ...
      ValueError: measure 'accuracy.mbq': value is not finite: nan
    """

    name: str
    value: float
    unit: str = ""
    _: dataclasses.KW_ONLY
    baseline: float | None = None
    paper: float | str | None = None
    low: float | None = None
    high: float | None = None
    trials: int | None = None

    def __post_init__(self):
        """Converts scalars to Python numbers and checks them."""
        where = f"measure {self.name!r}"
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"name must be a non-empty string: {self.name!r}")
        for field in ("value", "baseline", "paper", "low", "high", "trials"):
            given = getattr(self, field)
            if given is None and field != "value":
                continue
            if field == "paper" and isinstance(given, str):
                continue
            object.__setattr__(self, field, _number(given, f"{where}: {field}"))
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{where}: low and high must be given together")
        if self.low is not None and self.high is not None:
            if not self.low <= self.value <= self.high:
                raise ValueError(
                    f"{where}: need low <= value <= high: "
                    f"{self.low} <= {self.value} <= {self.high}"
                )
        if self.trials is not None and (
            self.trials < 1 or not isinstance(self.trials, int)
        ):
            raise ValueError(f"{where}: trials must be a positive integer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table for the report.

    Attributes:
      title: Heading.
      columns: Names of the columns.
      rows: Cells, ``[rows][columns]``: text, finite numbers or ``None``.
      caption: A sentence below the table.

    Raises:
      ValueError: If a row's length differs from the number of columns, or a number is
        not finite.
      TypeError: If a cell is neither text nor a number nor ``None``.

    Examples:
      >>> Table(title="Layers", columns=["layer", "bits"], rows=[["q", 3]]).rows
      (('q', 3),)
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    caption: str = ""

    def __post_init__(self):
        """Converts lists to tuples and checks the cells."""
        object.__setattr__(self, "columns", tuple(self.columns))
        rows = []
        for i, row in enumerate(self.rows):
            where = f"table {self.title!r}: row {i}"
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{where} has {len(row)} cells for {len(self.columns)} columns"
                )
            rows.append(
                tuple(
                    c if c is None or isinstance(c, str) else _number(c, where)
                    for c in row
                )
            )
        object.__setattr__(self, "rows", tuple(rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything one run of a study hands back, as plain data.

    Attributes:
      measures: The numbers that are followed over time, with unique names.
      tables: Further tables for the report.
      figures: Plots for the report, by file-like name (``"loss_by_method"``).
      notes: Sentences a reader of the numbers must know: which test was used, which
        data and sample size, where the method does not help.

    Raises:
      ValueError: If two measures have the same name.

    Examples:
      >>> Outcome(measures=[Measure("speedup", 2.0)]).measures[0].name
      'speedup'
    """

    measures: tuple[Measure, ...]
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        """Converts lists to tuples and checks that names are unique."""
        for field in ("measures", "tables", "notes"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "figures", dict(self.figures))
        seen = set()
        for measure in self.measures:
            if measure.name in seen:
                raise ValueError(f"measures has two entries named {measure.name!r}")
            seen.add(measure.name)


def _number(value: Any, where: str) -> int | float:
    """A finite Python number from any scalar."""
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        raise TypeError(f"{where} must be a number, not {type(value).__name__}")
    if not math.isfinite(item):
        raise ValueError(f"{where} is not finite: {item}")
    return item
