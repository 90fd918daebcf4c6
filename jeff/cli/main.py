"""From arguments to exit code; every error becomes one line."""

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jeff.cli import systems
from jeff.cli.errors import BadInput, one_line
from jeff.cli.interrupt import leave_at_once

__all__ = ["main"]


def main(
    argv: Sequence[str] | None = None,
    *,
    registry: Sequence[systems.System] = systems.SYSTEMS,
) -> int:
    """Runs one command.

    Args:
      argv: Words after ``jeff``; ``None`` takes them from the process.
      registry: The known systems; tests give their own.

    Returns:
      0; 1 if a run failed; 2 if an argument does not fit; 130 after Ctrl-C. Errors are
      one line on stderr; ``JEFF_DEBUG=1`` in the environment adds the traceback.

    Examples:
      >>> main(["list", "--json"], registry=())
      []
      0
    """
    # Only if this is the process: who calls us as a function keeps it.
    loading = contextlib.nullcontext if argv is not None else leave_at_once
    try:
        with loading():
            command = _prepared(argv, registry)
        code = command()
        if sys.stdout is not None:  # None if whoever started us closed it
            sys.stdout.flush()
        return code
    except BadInput as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        print("jeff: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more to flush to
        return 0
    except Exception as error:
        return _fail(error, 1)


def _prepared(
    argv: Sequence[str] | None, registry: Sequence[systems.System]
) -> Callable[[], int]:
    """What the arguments ask for, ready to be called."""
    # Imported when needed: plotting and tracing are slow to import, listing is not.
    from jeff.cli import arguments

    command = arguments.parse(argv)
    if isinstance(command, arguments.Run):
        from jeff.cli import run

        jobs = run.prepare(command, registry)
        return functools.partial(run.run, command, registry, jobs)
    if isinstance(command, arguments.Sites):
        from jeff.cli import sites

        return functools.partial(sites.sites, command)
    if isinstance(command, arguments.Report):
        from jeff.cli import page

        return functools.partial(page.report, command, registry)
    if isinstance(command, arguments.Fetch):
        from jeff.cli import fetch

        return functools.partial(fetch.fetch, command)
    if isinstance(command, arguments.Bench):
        from jeff.cli import bench

        return functools.partial(bench.bench, command, bench.plan(command), registry)
    if isinstance(command, arguments.Quantize):
        from jeff.cli import quantize

        return functools.partial(quantize.quantize, command, quantize.plan(command))
    if isinstance(command, arguments.Generate):
        from jeff.cli import generate

        return functools.partial(generate.generate, command)
    if isinstance(command, arguments.Sweep):
        from jeff.cli import sweep

        job = sweep.plan(command)
        return functools.partial(sweep.sweep, command, job, registry)
    return functools.partial(_list, command.json, registry)


def _list(as_json: bool, registry: Sequence[systems.System]) -> int:
    if as_json:
        rows = [
            {
                "name": s.name,
                "title": s.title,
                "summary": s.summary,
                "paper": s.paper,
                "status": "built" if systems.is_available(s) else "planned",
            }
            for s in registry
        ]
        print(json.dumps(rows, indent=2))
        return 0
    from jeff.cli import console, table

    table.print_systems(registry, console.console(sys.stdout))
    return 0


def _fail(error: Exception, code: int) -> int:
    if os.environ.get("JEFF_DEBUG") == "1":
        traceback.print_exception(error)
    print(f"jeff: error: {one_line(error)}", file=sys.stderr)
    return code
