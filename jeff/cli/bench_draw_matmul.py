"""What ``jeff bench draw-matmul`` prints and draws of what it found."""

import itertools

import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli import arguments
from jeff.cli.errors import BadInput
from jeff.cli.quantity import quantity
from jeff.evaluate import Figure, Series
from pallas_kernels.draw_matmul import bench, records, workload

__all__ = ["changes", "print_report", "shares"]


def changes(command: arguments.Bench) -> dict[str, tuple]:
    """Fields of the settings that the arguments change: none.

    Args:
      command: The arguments.

    Returns:
      An empty dictionary.

    Raises:
      BadInput: If widths of codes or rows are given, of which there are none.
    """
    for name in ("bits", "rows"):
        if getattr(command, name):
            raise BadInput(f"argument --{name}: draw-matmul has one row and no codes")
    return {}


def shares(report: bench.Report) -> Figure | None:
    """Share of the random words' throughput by draws, a line per implementation.

    Args:
      report: What was found.

    Returns:
      The plot, or ``None`` if nothing was measured.
    """
    lines: dict[str, list[tuple[float, ...]]] = {}
    for case, rows in _by_case(report):
        for name, row in rows.items():
            reached = records.share(row, rows["words"])
            if reached is not None and name not in bench.DRAWS:
                point = (case.draws, reached.median, reached.lower, reached.upper)
                lines.setdefault(name, []).append(point)
    if not lines:
        return None
    return Figure(
        kind="lines",
        title="Share of the throughput of random words",
        x_label="draws",
        y_label="share",
        x_scale="log",
        series=tuple(
            Series(name, *zip(*sorted(points), strict=True))
            for name, points in lines.items()
        ),
        caption="1 is the speed of drawing the same words and multiplying nothing. "
        f"Medians and quartiles of {report.settings.repeats} runs.",
    )


def print_report(report: bench.Report, out: rich.console.Console) -> None:
    """Prints the table, and what a reader must know.

    Args:
      report: What was found.
      out: Where to.
    """
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in ("product", "implementation"):
        table.add_column(name, no_wrap=True)
    for name in ("error", "time", "draws/s", "of words", "of normals"):
        table.add_column(name, justify="right")
    for case, rows in _by_case(report):
        for i, (name, row) in enumerate(rows.items()):
            cells = ["" if i else case.name, name, *_cells(row, rows)]
            last = i == len(rows) - 1
            table.add_row(*map(rich.text.Text, cells), end_section=last)
    out.print(table)
    for note in records.notes(report):
        out.print(note, style="dim", markup=False)


def _by_case(report: bench.Report) -> list[tuple[workload.Case, dict[str, bench.Row]]]:
    grouped = itertools.groupby(report.rows, lambda row: row.case)
    return [(case, {row.implementation: row for row in rows}) for case, rows in grouped]


def _cells(row: bench.Row, rows: dict[str, bench.Row]) -> list[str]:
    """What follows the names in a line of the table."""
    error = "" if row.error is None else f"{row.error:.1e}"
    if row.seconds is None:
        return [error, row.status, "", "", ""]
    seconds = row.seconds.median
    kinds = () if row.implementation in bench.DRAWS else bench.DRAWS
    reached = [records.share(row, rows[kind]) for kind in kinds] or [None, None]
    return [
        error,
        quantity(seconds, "s"),
        f"{row.case.draws / seconds:.3g}",
        *("" if s is None else f"{s.median:.0%}" for s in reached),
    ]
