"""``jeff bench OP``: an operation is checked, timed, and put beside its baselines."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import rich.console

from jeff.cli import (
    arguments,
    bench_decode,
    bench_dequant_matmul,
    bench_draw_matmul,
    page,
    plots,
)
from jeff.cli.console import console
from jeff.cli.errors import BadInput, RunFailed, nearest, one_line
from jeff.cli.interrupt import heard
from jeff.cli.progress import shown
from jeff.cli.systems import System
from jeff.evaluate import Figure
from jeff.io import (
    Details,
    check_place,
    device,
    versions,
    write_atomically,
    write_run,
)
from jeff.models import decode_bench
from jeff.models.decode_bench import records as decode_records
from pallas_kernels.dequant_matmul import bench as dequant_matmul
from pallas_kernels.dequant_matmul import records, workload
from pallas_kernels.draw_matmul import bench as draw_matmul
from pallas_kernels.draw_matmul import records as draw_records
from pallas_kernels.draw_matmul import workload as draw_workload

__all__ = ["OPS", "Settings", "bench", "plan"]

OPS = ("dequant-matmul", "draw-matmul", "decode")
"""What can be timed."""

Settings = workload.Settings | draw_workload.Settings | decode_bench.Settings
"""What is timed, of any."""

_INKS = "svg{--ink:#1a2233;--soft:#5d6880;--line:#e3e7ef;background:#fff}"


def plan(command: arguments.Bench) -> Settings:
    """What will be timed; computes nothing.

    Args:
      command: The arguments.

    Returns:
      The preset, changed as asked.

    Raises:
      BadInput: If the operation or the preset is unknown, a width or a number of rows
        does not fit or means nothing here, or settings are to be searched for without a
        GPU or a kernel.

    Examples:
      >>> command = arguments.parse(["bench", "dequant-matmul", "--rows", "1", "2"])
      >>> plan(command).rows
      (1, 2)
    """
    if command.op not in OPS:
        raise BadInput(
            f"argument OP: unknown operation {command.op!r}; {nearest(command.op, OPS)}"
        )
    op = _OPERATIONS[command.op]
    if command.preset not in op.presets:
        raise BadInput(
            f"argument --preset: unknown preset {command.preset!r}; "
            f"{nearest(command.preset, op.presets)}"
        )
    changes = op.changes(command)
    try:
        settings = dataclasses.replace(op.presets[command.preset], **changes)
    except ValueError as error:
        field = next((n for n in changes if str(error).startswith(n)), None)
        named = {"weights": "bits", "batches": "rows", None: "preset"}
        raise BadInput(
            f"argument --{named.get(field, field)}: {one_line(error)}"
        ) from error
    if command.tune is not None and not op.tuned:
        raise BadInput(f"argument --tune: {command.op} has no settings to search")
    if command.tune is not None and jax.default_backend() == "cpu":
        raise BadInput("argument --tune: the kernel that is tuned needs a GPU")
    return settings


def bench(
    command: arguments.Bench,
    settings: Settings,
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
    op = _OPERATIONS[command.op]
    folder = command.out / op.name
    _check_writable(folder, "--out")
    if command.tune is not None:
        _check_writable(command.tune, "--tune")
    errors = console(sys.stderr)
    try:
        with shown(command.op, errors) as progress, heard(progress) as told:
            told.stage("check and time", op.count(settings))
            report = op.run(
                settings,
                seed=command.seed,
                say=lambda text: errors.print(text, markup=False, soft_wrap=True),
                advance=told.advance,
                **({} if command.tune is None else {"tables": command.tune}),
            )
        record = op.record(
            report,
            preset=command.preset,
            seed=command.seed,
            versions=versions(),
            device=device(),
        )
        figure = op.figure(report)
        figures = {} if figure is None else {op.plot: figure}
        folder.mkdir(parents=True, exist_ok=True)
        text = write_run(folder, record, Details(figures=figures))
    except Exception as error:
        raise RunFailed(f"{command.op}: {one_line(error)}") from error
    if figure is not None:
        drawing = plots.svg(figure, name=op.plot)
        drawing = drawing.replace(">", f"><style>{_INKS}</style>", 1)
        write_atomically(folder / f"{op.plot}.svg", drawing)
    if command.json:
        sys.stdout.write(text)
    else:
        op.show(report, console(sys.stdout))
    drawn = page.write_report(command.out, registry)
    print(f"report: {drawn}", file=sys.stderr if command.json else sys.stdout)
    return int(any(row.status == "wrong" for row in report.rows))


def _check_writable(folder: pathlib.Path, argument: str) -> None:
    """Fails early where `folder` cannot be written to or made; makes nothing."""
    try:
        check_place(folder)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise BadInput(
            f"argument {argument}: cannot write to {str(folder)!r}: {reason}"
        ) from error


class _Operation(NamedTuple):
    """What differs between the things that can be timed."""

    name: str  # of the record and its folder
    plot: str
    tuned: bool
    presets: Mapping[str, Any]
    changes: Callable[[arguments.Bench], dict[str, Any]]
    count: Callable[[Any], int]
    run: Callable[..., Any]
    record: Callable[..., dict[str, Any]]
    figure: Callable[[Any], Figure | None]
    show: Callable[[Any, rich.console.Console], None]


_OPERATIONS = {
    "dequant-matmul": _Operation(
        name=records.NAME,
        plot="roofline",
        tuned=True,
        presets=workload.PRESETS,
        changes=lambda c: {n: v for n in ("bits", "rows") if (v := getattr(c, n))},
        count=lambda settings: len(workload.cases(settings)),
        run=lambda *args, **options: dequant_matmul.run(*args, **options),
        record=records.record,
        figure=bench_dequant_matmul.roofline,
        show=bench_dequant_matmul.print_report,
    ),
    "draw-matmul": _Operation(
        name=draw_records.NAME,
        plot="shares",
        tuned=False,
        presets=draw_workload.PRESETS,
        changes=bench_draw_matmul.changes,
        count=lambda settings: len(draw_workload.cases(settings)),
        run=lambda *args, **options: draw_matmul.run(*args, **options),
        record=draw_records.record,
        figure=bench_draw_matmul.shares,
        show=bench_draw_matmul.print_report,
    ),
    "decode": _Operation(
        name=decode_records.NAME,
        plot="times",
        tuned=False,
        presets=decode_bench.PRESETS,
        changes=lambda command: bench_decode.changes(command.bits, command.rows),
        count=lambda s: len(s.decoders) * (len(s.batches) + len(s.prefill)),
        run=decode_bench.run,
        record=decode_bench.record,
        figure=bench_decode.times,
        show=bench_decode.print_report,
    ),
}
