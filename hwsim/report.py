"""What a simulation found: named quantities in SI units, and what they are made of."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Quantity", "Report", "Row", "text_table"]

_UNITS = {
    "j": "J",
    "s": "s",
    "m2": "m^2",
    "w": "W",
    "v": "V",
    "a": "A",
    "hz": "Hz",
    "ohm": "ohm",
}


class Row(NamedTuple):
    """One line of a report's table.

    Attributes:
      quantity: Name of the quantity.
      part: Name of the part; empty for the total.
      value: In the unit.
      unit: SI unit, or empty for a pure number.
      share: Of the total; 1 for the total itself, and where the total is 0.
    """

    quantity: str
    part: str
    value: float
    unit: str
    share: float


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number, and the parts that add up to it.

    Attributes:
      name: Such as ``energy_j``: what follows the last underscore is the unit (j, s,
        m2, w, v, a, hz, ohm); any other name is a pure number, such as ``cycles``.
      value: The total.
      parts: Pairs of name and value; none, or such that they add up to the total.

    Raises:
      ValueError: If a number is not finite, a part is named twice, or the parts do not
        add up to `value` (to 1e-9 of it).

    Examples:
      >>> Quantity("energy_j", 3.0, (("adders", 1.0), ("memory", 2.0))).unit
      'J'
    """

    name: str
    value: float
    parts: tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        """Checks the numbers."""
        values = [value for _, value in self.parts]
        if not all(map(math.isfinite, [self.value, *values])):
            raise ValueError(f"{self.name} is not finite: {self.value}, {self.parts}")
        if len({name for name, _ in self.parts}) != len(self.parts):
            raise ValueError(f"{self.name} has two parts of one name: {self.parts}")
        if self.parts and not math.isclose(math.fsum(values), self.value, rel_tol=1e-9):
            raise ValueError(
                f"the parts of {self.name} add up to {math.fsum(values)}, "
                f"not to {self.value}"
            )

    @property
    def unit(self) -> str:
        """SI unit, read from the name; empty for a pure number."""
        head, _, tail = self.name.rpartition("_")
        return _UNITS.get(tail, "") if head else ""


@dataclasses.dataclass(frozen=True)
class Report:
    """Quantities by name.

    Attributes:
      title: What was simulated.
      quantities: The quantities, each name once.
      notes: What the reader must know, such as assumptions.

    Raises:
      ValueError: If two quantities have one name.

    Examples:
      >>> energy = Quantity("energy_j", 3e-6, (("adders", 1e-6), ("memory", 2e-6)))
      >>> report = Report("demo", (energy, Quantity("cycles", 40.0)))
      >>> report["cycles"], round(report.share("energy_j", "memory"), 3)
      (40.0, 0.667)
      >>> print(report)
      demo
      quantity  part    value  unit  share
      energy_j          3e-06  J     1.000
                adders  1e-06  J     0.333
                memory  2e-06  J     0.667
      cycles            40           1.000
    """

    title: str
    quantities: tuple[Quantity, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks the names."""
        names = [quantity.name for quantity in self.quantities]
        if len(set(names)) != len(names):
            raise ValueError(f"two quantities of one name: {names}")

    def quantity(self, name: str) -> Quantity:
        """A quantity with its parts.

        Args:
          name: Its name.

        Returns:
          The quantity.

        Raises:
          KeyError: If there is none; the message lists the names.
        """
        for quantity in self.quantities:
            if quantity.name == name:
                return quantity
        known = [quantity.name for quantity in self.quantities]
        raise KeyError(f"no quantity {name!r}; there are {known}")

    def __getitem__(self, name: str) -> float:
        """Value of a quantity."""
        return self.quantity(name).value

    def share(self, name: str, part: str) -> float:
        """What fraction of a quantity one part is.

        Args:
          name: Name of the quantity.
          part: Name of the part.

        Returns:
          The fraction; 0 where the quantity is 0.

        Raises:
          KeyError: If there is no such quantity or part.
        """
        quantity = self.quantity(name)
        parts: Mapping[str, float] = dict(quantity.parts)
        if part not in parts:
            raise KeyError(f"no part {part!r} of {name}; there are {list(parts)}")
        return parts[part] / quantity.value if quantity.value else 0.0

    def rows(self) -> tuple[Row, ...]:
        """The report as a table: every total, followed by its parts.

        Returns:
          The lines.
        """
        rows = []
        for quantity in self.quantities:
            rows.append(Row(quantity.name, "", quantity.value, quantity.unit, 1.0))
            for part, value in quantity.parts:
                share = self.share(quantity.name, part)
                rows.append(Row(quantity.name, part, value, quantity.unit, share))
        return tuple(rows)

    def __str__(self) -> str:
        """The table as text."""
        lines = [
            ("" if r.part else r.quantity, r.part, f"{r.value:.4g}", r.unit,
             f"{r.share:.3f}")
            for r in self.rows()
        ]  # fmt: skip
        table = text_table(("quantity", "part", "value", "unit", "share"), lines)
        return "\n".join([self.title, table, *self.notes])


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, two blanks apart, without trailing blanks.

    Args:
      header: Names of the columns.
      rows: Lines with one entry per column.

    Returns:
      The text.

    Raises:
      ValueError: If a line has another number of entries.

    Examples:
      >>> print(text_table(("name", "value"), [("a", "1"), ("long", "2")]))
      name  value
      a     1
      long  2
    """
    lines = [tuple(header), *map(tuple, rows)]
    for line in lines:
        if len(line) != len(header):
            raise ValueError(f"{line} does not have {len(header)} entries")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            entry.ljust(width) for entry, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )
