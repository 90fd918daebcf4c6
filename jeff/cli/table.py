"""The tables that go to stdout."""

import itertools
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli.quantity import estimate, quantity
from jeff.cli.systems import System, is_available

__all__ = ["print_measures", "print_systems"]


def print_measures(
    results: Sequence[tuple[System, dict[str, Any]]], console: rich.console.Console
) -> None:
    """Prints one table with the measures of every system that ran.

    In a narrow terminal whole columns are left out rather than numbers cut.

    Args:
      results: Registry entry and result record, in the order they ran.
      console: Where to.
    """
    rows = [_row(*result, i) for result in results for i in range(_count(result))]
    room = console.width - 2  # a space at either end, three between columns
    widths = {name: _width(name, rows) + 3 for name in _COLUMNS}
    shown = list(_COLUMNS)
    left_out: list[str] = []
    while sum(widths[name] for name in shown) - 3 > room and len(shown) > 2:
        left_out.append(next(name for name in _FIRST_OUT if name in shown))
        shown.remove(left_out[-1])
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        table.add_column(name, **_COLUMNS[name])
    ends = set(itertools.accumulate(map(_count, results)))
    for i, row in enumerate(rows, 1):
        # Text, not markup: brackets are intervals here.
        cells = (rich.text.Text(row[name]) for name in shown)
        table.add_row(*cells, end_section=i in ends)
    console.print(table)
    if left_out:
        columns = ", ".join(left_out)
        console.print(f"No room here, but in the report: {columns}.", style="dim")
    for system, record in results:
        for note in record.get("notes", ()):
            console.print(f"{system.name}: {note}", style="dim", markup=False)


_COLUMNS: dict[str, dict[str, Any]] = {
    "system": {"no_wrap": True, "style": "bold"},
    "measure": {"no_wrap": True},
    "result": {"no_wrap": True, "justify": "right"},
    "95 % interval": {"no_wrap": True, "justify": "right"},
    "baseline": {"no_wrap": True, "justify": "right"},
    "paper's claim": {"style": "italic dim"},
}
_FIRST_OUT = ("paper's claim", "baseline", "95 % interval", "system")


def _count(result: tuple[System, dict[str, Any]]) -> int:
    return len(result[1]["measures"])


def _row(system: System, record: dict[str, Any], i: int) -> dict[str, str]:
    """Cells of the record's measure `i` by column."""
    m = record["measures"][i]
    number, suffix, interval = estimate(m["value"], m["low"], m["high"], m["unit"])
    return {
        "system": system.name if i == 0 else "",
        "measure": m["name"],
        "result": f"{number} {suffix}".rstrip(),
        "95 % interval": interval,
        "baseline": _cited(m["baseline"], m["unit"]),
        "paper's claim": _cited(m["paper"], m["unit"]),
    }


def _width(column: str, rows: Sequence[dict[str, str]]) -> int:
    """Letters a column needs; what may be wrapped needs its longest word."""
    wraps = not _COLUMNS[column].get("no_wrap")
    texts = (column, *(row[column] for row in rows))
    return max(
        len(word) for t in texts for word in (t.split() if wraps else [t]) or "-"
    )


def _cited(value: float | str | None, unit: str) -> str:
    return "" if value is None else quantity(value, unit)


def print_systems(
    systems: Sequence[System], console: rich.console.Console, *, heading: str = ""
) -> None:
    """Prints what each system is, and whether it is built.

    Args:
      systems: Entries of the registry.
      console: Where to.
      heading: A line above the table.
    """
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, pad_edge=False, title=heading, title_justify="left"
    )
    table.add_column("system", no_wrap=True, style="bold")
    table.add_column("status", no_wrap=True)
    table.add_column("what it does")
    table.add_column("paper", no_wrap=True, style="dim")
    for system in systems:
        status = "[green]built[/]" if is_available(system) else "[dim]planned[/]"
        table.add_row(system.name, status, system.summary, system.paper)
    console.print(table)
