"""The tables that ``jeff sweep`` prints."""

from collections.abc import Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli.quantity import estimate, quantity
from jeff.evaluate import Interval
from jeff.sweep import FaultStudy, Found
from jeff.sweep.study.targets import expected_faults

__all__ = ["print_curve", "print_layers"]

_LAYERS = 12  # that the table of the map shows; the report has all


def print_curve(study: FaultStudy, found: Found, out: rich.console.Console) -> None:
    """Prints a line per rate.

    Args:
      study: The study.
      found: What it found.
      out: Where to.
    """
    level = f"{100 * study.settings.level:g} %"
    rows = [["0", "0", "", quantity(study.golden_accuracy, "fraction"), *[""] * 6]]
    for p in found.curve:
        faults = expected_faults(study.fault, p.rate, study.targets)
        rows.append(
            [
                f"{p.rate:.6g}",
                f"{faults:,.4g}",
                f"{p.trials:,}",
                *_cells(p.accuracy),
                _cells(p.any_images)[1] if p.any_images else "",
                *_cells(p.sdc),
                quantity(p.critical.value, "fraction"),
                quantity(p.nonfinite, "fraction"),
            ]
        )
    names = (
        "rate", "faults\nper trial", "trials", "accuracy", level, "on new\nimages",
        "answers\nchanged", level, "right made\nwrong", "no\nanswer",
    )  # fmt: skip
    _print(names, rows, out, first_out=(9, 8, 1, 2, 7, 6, 5))


def print_layers(found: Found, out: rich.console.Console) -> None:
    """Prints the layers where one flipped bit changes most.

    Args:
      found: What was found, with a map.
      out: Where to.
    """
    ordered = sorted(found.maps["layer"], key=lambda row: -row.sdc.value)
    rows = []
    for row in ordered[:_LAYERS]:
        cells = [r for r in found.maps["layer_bit"] if r.layer == row.layer]
        worst = max(cells, key=lambda r: r.sdc.value)
        share = quantity(worst.sdc.value, "fraction")
        rows.append([row.layer, *_cells(row.sdc), f"{worst.bit}: {share}"])
    names = ("one flipped bit in", "answers\nchanged", "interval", "worst bit")
    _print(names, rows, out, first_out=(2, 3))
    if len(ordered) > _LAYERS:
        rest = len(ordered) - _LAYERS
        out.print(f"{rest} more layers are in the report.", style="dim")


def _cells(found: Interval) -> list[str]:
    value, low, high, _ = found
    number, unit, interval = estimate(
        value, min(low, value), max(high, value), "fraction"
    )
    return [f"{number} {unit}", interval]


def _print(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    out: rich.console.Console,
    *,
    first_out: Sequence[int],
) -> None:
    """Prints a table; where there is no room, whole columns are left out."""
    widths = [
        2 + max(len(line) for cell in column for line in cell.split("\n"))
        for column in zip(names, *rows, strict=True)
    ]
    empty = {i for i in first_out if not any(row[i] for row in rows)}
    first_out = [i for i in first_out if i not in empty]
    shown = [i for i in range(len(names)) if i not in empty]
    for i in first_out:
        if sum(widths[j] for j in shown) > out.width:
            shown.remove(i)
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for i in shown:
        table.add_column(names[i], justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(rich.text.Text(row[i]) for i in shown))
    out.print(table)
    if len(shown) + len(empty) < len(names):
        gone = [names[i].replace("\n", " ") for i in first_out if i not in shown]
        out.print(f"No room here, but in the report: {', '.join(gone)}.", style="dim")
