"""What ``jeff bench decode`` prints and draws of what it found."""

import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli.quantity import estimate, quantity
from jeff.evaluate import Figure, Series
from jeff.models import decode_bench
from jeff.models.decode_bench import records

__all__ = ["changes", "print_report", "times"]


def changes(bits: tuple[int, ...], rows: tuple[int, ...]) -> dict[str, tuple]:
    """Fields of the settings that the arguments change.

    Args:
      bits: Widths of the packed weights; empty leaves the preset's.
      rows: Sequences decoded together; empty leaves the preset's.

    Returns:
      Values by field of `decode_bench.Settings`.

    Examples:
      >>> changes((3,), ())
      {'weights': ('w3',)}
    """
    found = {"weights": tuple(f"w{n}" for n in bits), "batches": rows}
    return {name: values for name, values in found.items() if values}


def times(report: decode_bench.Report) -> Figure | None:
    """Time per token by sequences, a line per decoder and kind of weights.

    Args:
      report: What was found.

    Returns:
      The plot, or ``None`` if nothing was measured.
    """
    lines: dict[str, list[tuple[float, ...]]] = {}
    for row in report.rows:
        if row.kind == "decode" and row.seconds is not None:
            s = row.seconds
            point = (row.size, 1e3 * s.median, 1e3 * s.lower, 1e3 * s.upper)
            lines.setdefault(f"{row.model} {row.weights}", []).append(point)
    if not lines:
        return None
    return Figure(
        kind="lines",
        title="Time per decoded token of every sequence",
        x_label="sequences",
        y_label="ms",
        x_scale="log",
        y_scale="log",
        series=tuple(
            Series(name, *zip(*sorted(points), strict=True))
            for name, points in lines.items()
        ),
        caption=f"Medians and quartiles of {report.settings.repeats} runs.",
    )


_COLUMNS = ("decoder", "weights", "sequences or prompt", "error", "time")
_NUMBERS = ("95 % interval", "tokens/s", "faster than dense", "weights, bytes", "peak")


def print_report(report: decode_bench.Report, out: rich.console.Console) -> None:
    """Prints the table, and what a reader must know.

    Args:
      report: What was found.
      out: Where to.
    """
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in (*_COLUMNS, *_NUMBERS):
        text = name in _COLUMNS[:3]
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    dense = {
        (row.model, row.kind, row.size): row.seconds.median
        for row in report.rows
        if row.weights == "dense" and row.seconds is not None
    }
    previous = None
    for row in report.rows:
        group = row.model, row.kind, row.size
        if previous is not None and group != previous:
            table.add_section()
        name = "" if previous is not None and previous[0] == row.model else row.model
        size = f"{row.size} at once" if row.kind == "decode" else f"{row.size} tokens"
        cells = [name, row.weights, size, *_cells(row, dense.get(group))]
        table.add_row(*map(rich.text.Text, cells))
        previous = group
    out.print(table)
    for note in records.notes(report):
        out.print(note, style="dim", markup=False)


def _cells(row: decode_bench.Row, dense: float | None) -> list[str]:
    """What follows the names in a line of the table."""
    error = "" if row.error is None else f"{row.error:.1e}"
    if row.seconds is None:
        return [error, row.status, "", "", "", "", ""]
    s = row.seconds
    number, unit, ends = estimate(s.median, s.low, s.high, "s")
    tokens = row.size / s.median
    return [
        error,
        f"{number} {unit}",
        ends,
        f"{tokens:,.4g}",
        "" if dense is None else f"{dense / s.median:.2f}",
        quantity(row.nbytes, "bytes"),
        "" if row.peak is None else quantity(row.peak, "bytes"),
    ]
