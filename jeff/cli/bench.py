"""``jeff bench OP``: an operation is checked, timed, and put beside its baselines."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import rich.box
import rich.console
import rich.table
import rich.text

from jeff.cli import arguments, page, plots
from jeff.cli.console import console
from jeff.cli.errors import BadInput, RunFailed, nearest, one_line
from jeff.cli.interrupt import heard
from jeff.cli.progress import shown
from jeff.cli.quantity import quantity
from jeff.cli.systems import System
from jeff.evaluate import Figure, Series
from jeff.io import (
    Details,
    check_writable,
    device,
    versions,
    write_atomically,
    write_run,
)
from pallas_kernels.dequant_matmul import bench as dequant_matmul
from pallas_kernels.dequant_matmul import records, workload

__all__ = ["OPS", "PLOT_FILE", "bench", "plan", "roofline"]

OPS = ("dequant-matmul",)
"""What can be timed."""

PLOT_FILE = "roofline.svg"

_INKS = "svg{--ink:#1a2233;--soft:#5d6880;--line:#e3e7ef;background:#fff}"


def plan(command: arguments.Bench) -> workload.Settings:
    """What will be timed; computes nothing.

    Args:
      command: The arguments.

    Returns:
      The preset, changed as asked.

    Raises:
      BadInput: If the operation or the preset is unknown, a width or a number of rows
        does not fit, or settings are to be searched for without a GPU.

    Examples:
      >>> command = arguments.parse(["bench", "dequant-matmul", "--rows", "1", "2"])
      >>> plan(command).rows
      (1, 2)
    """
    if command.op not in OPS:
        raise BadInput(
            f"argument OP: unknown operation {command.op!r}; {nearest(command.op, OPS)}"
        )
    if command.preset not in workload.PRESETS:
        raise BadInput(
            f"argument --preset: unknown preset {command.preset!r}; "
            f"{nearest(command.preset, workload.PRESETS)}"
        )
    changes = {name: getattr(command, name) for name in ("bits", "rows")}
    changes = {name: values for name, values in changes.items() if values}
    try:
        settings = dataclasses.replace(workload.PRESETS[command.preset], **changes)
    except ValueError as error:
        named = next((n for n in changes if str(error).startswith(n)), "preset")
        raise BadInput(f"argument --{named}: {one_line(error)}") from error
    if command.tune is not None and jax.default_backend() == "cpu":
        raise BadInput("argument --tune: the kernel that is tuned needs a GPU")
    return settings


def bench(
    command: arguments.Bench,
    settings: workload.Settings,
    registry: Sequence[System] = (),
) -> int:
    """Times the operation; prints a table, writes the record, the plot and the report.

    Args:
      command: The arguments.
      settings: From `plan`.
      registry: The known systems, for the report.

    Returns:
      Exit code: 0, or 1 if an implementation was wrong.

    Raises:
      BadInput: If a folder cannot be written to.
      RunFailed: If the benchmark fails.
    """
    folder = command.out / records.NAME
    _check_writable(folder, "--out")
    if command.tune is not None:
        _check_writable(command.tune, "--tune")
    errors = console(sys.stderr)
    try:
        with shown(command.op, errors) as progress, heard(progress) as told:
            told.stage("check and time", len(workload.cases(settings)))
            report = dequant_matmul.run(
                settings,
                seed=command.seed,
                tables=command.tune,
                say=lambda text: errors.print(text, markup=False, soft_wrap=True),
                advance=told.advance,
            )
        record = records.record(
            report,
            preset=command.preset,
            seed=command.seed,
            versions=versions(),
            device=device(),
        )
        figure = roofline(report)
        figures = {} if figure is None else {"roofline": figure}
        folder.mkdir(parents=True, exist_ok=True)
        text = write_run(folder, record, Details(figures=figures))
    except Exception as error:
        raise RunFailed(f"{command.op}: {one_line(error)}") from error
    if figure is not None:
        drawing = plots.svg(figure, name="roofline")
        drawing = drawing.replace(">", f"><style>{_INKS}</style>", 1)
        write_atomically(folder / PLOT_FILE, drawing)
    if command.json:
        sys.stdout.write(text)
    else:
        _print(report, console(sys.stdout))
    drawn = page.write_report(command.out, registry)
    print(f"report: {drawn}", file=sys.stderr if command.json else sys.stdout)
    return int(any(row.status == "wrong" for row in report.rows))


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


def _print(report: dequant_matmul.Report, out: rich.console.Console) -> None:
    """The table, and what a reader must know."""
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


def _check_writable(folder: pathlib.Path, argument: str) -> None:
    """Fails early where `folder` cannot be written to or made; makes nothing."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        check_writable(there)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise BadInput(
            f"argument {argument}: cannot write to {str(folder)!r}: {reason}"
        ) from error
