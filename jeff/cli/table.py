"""The tables that go to stdout."""

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

    Args:
      results: Registry entry and result record, in the order they ran.
      console: Where to.
    """
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("system", no_wrap=True, style="bold")
    table.add_column("measure", no_wrap=True)
    for heading in ("result", "95 % interval", "baseline"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paper's claim", style="italic dim")
    for system, record in results:
        for i, m in enumerate(record["measures"]):
            unit = m["unit"]
            number, suffix, interval = estimate(m["value"], m["low"], m["high"], unit)
            last = i == len(record["measures"]) - 1
            table.add_row(
                system.name if i == 0 else "",
                m["name"],
                f"{number} {suffix}".rstrip(),
                rich.text.Text(interval),
                quantity(m["baseline"], unit) if m["baseline"] is not None else "",
                quantity(m["paper"], unit) if m["paper"] is not None else "",
                end_section=last,
            )
    console.print(table)
    for system, record in results:
        for note in record.get("notes", ()):
            console.print(f"{system.name}: {note}", style="dim", markup=False)


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
