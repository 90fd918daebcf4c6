"""What ``jeff bench dequant-matmul`` prints and draws of what it found."""

from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli.quantity import quantity
from jeff.evaluate import Figure, Series
from pallas_kernels.dequant_matmul import bench as dequant_matmul
from pallas_kernels.dequant_matmul import records

__all__ = ["print_report", "roofline"]


def roofline(report: dequant_matmul.Report) -> Figure | None:
    """Time over the bytes floor by rows of x, a line per shape, width and program.

    Of jeff's implementations the one that `dequant_matmul` picks is drawn, beside the
    dense product, over its own floor.

    Args:
      report: What was found.

    Returns:
      The plot, or ``None`` if nothing was measured.
    """
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    own = {case: row.implementation for case, row in _first(report).items()}
    for row in report.rows:
        if row.seconds is None or row.implementation not in (own[row.case], "dense"):
            continue
        floor = records.floor_seconds(row, report.stream)
        case, seconds = row.case, row.seconds
        dense = row.implementation == "dense"
        width = "dense" if dense else f"W{case.bits} {row.implementation}"
        points = lines.setdefault(f"{case.size}x{case.columns} {width}", [])
        if case.rows not in [point[0] for point in points]:
            low, high = seconds.lower / floor, seconds.upper / floor
            points.append((case.rows, seconds.median / floor, low, high))
    if not lines:
        return None
    series = [
        Series(name, *zip(*sorted(points), strict=True))
        for name, points in lines.items()
    ]
    return Figure(
        kind="lines",
        title="Time over the time of reading the weights once",
        x_label="rows of x, M",
        y_label="time / bytes floor",
        x_scale="log",
        y_scale="log",
        series=tuple(series),
        caption="1 is the speed of the memory: bytes of the weights (packed words, "
        "scales and zero points, or dense) over a streaming read of the same run. "
        f"Medians and quartiles of {report.settings.repeats} runs.",
    )


def _first(report: dequant_matmul.Report) -> dict[Any, Any]:
    """The first row of each product: what `dequant_matmul` picks by itself."""
    first: dict[Any, Any] = {}
    for row in report.rows:
        first.setdefault(row.case, row)
    return first


_COLUMNS = ("product", "implementation", "error", "time", "quartiles")
_NUMBERS = ("GB/s", "of the floor's speed", "x dense")


def print_report(report: dequant_matmul.Report, out: rich.console.Console) -> None:
    """Prints the table, and what a reader must know.

    Args:
      report: What was found.
      out: Where to.
    """
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in (*_COLUMNS, *_NUMBERS):
        text = name in ("product", "implementation")
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    dense = {
        row.case: row.seconds.median
        for row in report.rows
        if row.seconds is not None and row.implementation == "dense"
    }
    last = {row.case: i for i, row in enumerate(report.rows)}
    previous = None
    for i, row in enumerate(report.rows):
        name = "" if row.case == previous else row.case.name
        cells = [name, row.implementation, *_cells(row, report, dense.get(row.case))]
        table.add_row(*map(rich.text.Text, cells), end_section=last[row.case] == i)
        previous = row.case
    out.print(table)
    speed = report.stream.median / 1e9
    out.print(f"Streaming read in the same run: {speed:.3g} GB/s.")
    for note in records.notes(report):
        out.print(note, style="dim", markup=False)


def _cells(row: dequant_matmul.Row, report, dense: float | None) -> list[str]:
    """What follows the names in a line of the table."""
    error = "" if row.error is None else f"{row.error:.1e}"
    if row.seconds is None:
        return [error, row.status, "", "", "", ""]
    seconds = row.seconds
    return [
        error,
        quantity(seconds.median, "s"),
        f"[{quantity(seconds.lower, 's')}, {quantity(seconds.upper, 's')}]",
        f"{row.nbytes / seconds.median / 1e9:.3g}",
        f"{records.floor_seconds(row, report.stream) / seconds.median:.0%}",
        "" if dense is None else f"{dense / seconds.median:.2f}",
    ]
