"""``jeff run``: everything is checked first, then systems run one after another."""

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console

from jeff.cli import arguments, page, settings, systems, table
from jeff.cli.console import console
from jeff.cli.errors import BadInput, RunFailed, one_line
from jeff.cli.interrupt import heard
from jeff.cli.progress import shown
from jeff.evaluate import Outcome, Study
from jeff.io import (
    DETAILS_FILE,
    RESULT_FILE,
    RESULT_FORMAT,
    Details,
    check_place,
    device,
    versions,
    write_run,
)

__all__ = ["Job", "plan", "prepare", "run"]

_FILES = (RESULT_FILE, DETAILS_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One system about to run.

    Attributes:
      system: Its entry in the registry.
      study: What runs.
      preset: Name of the settings it starts from.
      settings: The settings, changed as asked.
    """

    system: systems.System
    study: Study
    preset: str
    settings: Any


def prepare(command: arguments.Run, registry: Sequence[systems.System]) -> list[Job]:
    """Imports what runs and looks for a device; writes and computes nothing.

    Args:
      command: The arguments.
      registry: The known systems.

    Returns:
      As `plan`.

    Raises:
      BadInput: As `plan`.
      RunFailed: As `plan`, or if JAX has no device.
    """
    jobs = plan(command, registry)
    _check_device()
    return jobs


def run(
    command: arguments.Run, registry: Sequence[systems.System], jobs: Sequence[Job]
) -> int:
    """Runs systems and writes their results and the report.

    Args:
      command: The arguments.
      registry: The known systems.
      jobs: From `prepare`.

    Returns:
      Exit code: 0, or 1 if a system failed (the others still run).

    Raises:
      BadInput: If the folder cannot be written to; nothing has been written then.
      RunFailed: If the only system failed, or all did.
      KeyboardInterrupt: On Ctrl-C; finished systems keep their results.
    """
    errors = console(sys.stderr)
    _check_out(command.out, jobs)
    if command.system == "all":
        table.print_systems(registry, errors, heading="The systems of jeff")
    done: list[tuple[systems.System, dict[str, Any]]] = []
    texts: list[str] = []
    failures: list[RunFailed] = []
    for job in jobs:
        try:
            record, text = _execute(job, command, errors)
        except RunFailed as failure:
            if len(jobs) == 1:
                raise
            failures.append(failure)
            if os.environ.get("JEFF_DEBUG") == "1":
                errors.print_exception()
            print(f"jeff: error: {failure}", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            if done:
                kept = ", ".join(system.name for system, _ in done)
                print(f"jeff: results kept in {command.out}: {kept}", file=sys.stderr)
                page.write_report(command.out, registry)
            raise
        done.append((job.system, record))
        texts.append(text)
    if not done:
        raise RunFailed("every system failed")
    # The numbers first: they are there even if the page cannot be written.
    if command.json:
        _print_json(texts, many=command.system == "all")
    else:
        table.print_measures(done, console(sys.stdout))
    report = page.write_report(command.out, registry)
    print(f"report: {report}", file=sys.stderr if command.json else sys.stdout)
    return 1 if failures else 0


def plan(command: arguments.Run, registry: Sequence[systems.System]) -> list[Job]:
    """Which systems run, with which settings.

    Args:
      command: The arguments.
      registry: The known systems.

    Returns:
      One job per system, in the registry's order.

    Raises:
      BadInput: If the system, the preset or a field is unknown, a value does not fit,
        or ``--set`` is given with ``all``.
      RunFailed: If no system is built, or a study cannot be imported.

    Examples:
      >>> command = arguments.parse(["run", "mbq", "--set", "trials=3"])
      >>> (job,) = plan(command, systems.SYSTEMS)
      >>> job.system.title, job.preset, job.settings.trials
      ('MBQ', 'default', 3)
    """
    if command.system != "all":
        chosen = [systems.find(command.system, registry)]
    elif command.changes:
        raise BadInput(
            f"argument --set {command.changes[0]}: changes one system's settings; "
            "name the system instead of 'all'"
        )
    else:
        chosen = [s for s in registry if systems.is_available(s)]
        if not chosen:
            raise RunFailed(
                "nothing to run: none of the systems is built in this version "
                "(see jeff list)"
            )
    jobs = []
    for system in chosen:
        study = systems.load(system)
        preset, values = settings.choose(
            study, command.preset, command.changes, system=system.name
        )
        jobs.append(Job(system=system, study=study, preset=preset, settings=values))
    return jobs


def _check_device() -> None:
    try:
        device()
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise RunFailed(
            f"JAX has no device to run on (JAX_PLATFORMS={asked!r}): {one_line(error)}"
        ) from error


def _check_out(out: pathlib.Path, jobs: Sequence[Job]) -> None:
    try:
        check_place(out)
        for job in jobs:
            check_place(out / job.system.name)
        files = [out / job.system.name / f for job in jobs for f in _FILES]
        for file in (*files, out / page.PAGE_FILE):
            if file.is_dir():
                raise BadInput(f"argument --out: {str(file)!r} is a folder, not a file")
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise BadInput(f"argument --out: cannot write to {str(out)!r}: {reason}") from (
            error
        )


def _execute(
    job: Job, command: arguments.Run, errors: rich.console.Console
) -> tuple[dict[str, Any], str]:
    """Runs one system and writes its files."""
    start = time.perf_counter()
    try:
        with shown(job.system.name, errors) as progress, heard(progress) as told:
            outcome = job.study.run(job.settings, key_seed=command.seed, progress=told)
        if not isinstance(outcome, Outcome):
            raise TypeError(f"the study returned {type(outcome).__name__}, no Outcome")
        record = _record(job, command.seed, time.perf_counter() - start, outcome)
        details = Details(tables=outcome.tables, figures=outcome.figures)
        folder = command.out / job.system.name
        folder.mkdir(parents=True, exist_ok=True)
        text = write_run(folder, record, details)
    except Exception as error:
        raise RunFailed(f"{job.system.name}: {one_line(error)}") from error
    return json.loads(text), text


def _record(job: Job, seed: int, seconds: float, outcome: Outcome) -> dict[str, Any]:
    return {
        "format": RESULT_FORMAT,
        "system": job.system.name,
        "preset": job.preset,
        "settings": {
            f.name: _plain(getattr(job.settings, f.name))
            for f in dataclasses.fields(job.settings)
        },
        "seed": seed,
        "versions": versions(),
        "device": device(),
        "seconds": round(seconds, 3),
        "measures": [dataclasses.asdict(m) for m in outcome.measures],
        "notes": list(outcome.notes),
    }


def _plain(value: Any) -> Any:
    """A settings value as JSON can hold it; what JSON has no form for, as text."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _print_json(texts: Sequence[str], *, many: bool) -> None:
    if not many:
        sys.stdout.write(texts[0])
        return
    sys.stdout.write(json.dumps([json.loads(t) for t in texts], indent=2) + "\n")
