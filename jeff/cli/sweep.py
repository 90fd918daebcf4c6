"""``jeff sweep MODEL``: accuracy under faults, and which layers and bits matter."""

import dataclasses
import pathlib
import re
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jeff.cli import arguments, page, processes, sweep_table
from jeff.cli.console import console
from jeff.cli.errors import BadInput, RunFailed, one_line
from jeff.cli.interrupt import heard
from jeff.cli.progress import shown
from jeff.cli.settings import parse_value
from jeff.cli.sweep_subject import Network, network
from jeff.cli.systems import System
from jeff.evaluate import NoProgress
from jeff.io import (
    RESULT_FORMAT,
    Details,
    check_place,
    device,
    versions,
    write_run,
)
from jeff.sweep import (
    Examples,
    FaultStudy,
    StudySettings,
    examples,
    named_fault,
    prepare_study,
    run_study,
    stored_as,
    study_outcome,
)

__all__ = ["Job", "plan", "sweep"]

_BATCH = 64  # images at a time without faults, before it is planned


class Job(NamedTuple):
    """A sweep that is ready to run.

    Attributes:
      name: Name of its folder in ``--out``.
      about: A sentence for the report.
      study: What runs.
    """

    name: str
    about: str
    study: FaultStudy


def plan(command: arguments.Sweep) -> Job:
    """Reads the network, runs it once without faults, and plans the sweep.

    Args:
      command: The arguments.

    Returns:
      The job.

    Raises:
      BadInput: If an argument, a file or the folder does not fit.
      RunFailed: If the network cannot be run.
    """
    processes.begin(command.distributed)
    try:
        settings = _settings(command)
    except (TypeError, ValueError) as error:
        raise BadInput(one_line(error)) from error
    if command.images < 2:
        raise BadInput(f"argument --images: must be at least 2, got {command.images}")
    slug = re.sub(r"[^\w.-]+", "-", command.model)
    name = f"sweep-{slug}-{settings.fault.replace('_', '-')}"
    _check_out(command.out, name)
    found = network(command)
    batch = min(command.batch or _BATCH, len(jax.tree.leaves(found.inputs)[0]))
    params, data = _golden(command, found, batch)
    try:
        study = prepare_study(
            found.apply,
            params,
            data,
            settings,
            jax.random.key(command.seed),
            golden_batch=batch,
            directory=command.out / name,
            about={
                "model": command.model,
                "images": command.images,
                "seed": command.seed,
                "stored": command.stored,
            },
            map_images=command.map_images,
            devices=command.devices,
            byte_budget=command.byte_budget,
        )
    except (OSError, TypeError, ValueError) as error:
        raise BadInput(one_line(error)) from error
    except Exception as error:
        raise RunFailed(f"{command.model}: {one_line(error)}") from error
    return Job(name, found.about, study)


def sweep(command: arguments.Sweep, job: Job, registry: Sequence[System]) -> int:
    """Runs what is not finished, and writes table, record and report.

    Args:
      command: The arguments.
      job: From `plan`.
      registry: The known systems, for the report.

    Returns:
      Exit code 0.

    Raises:
      BadInput: If the folder is of another sweep.
      RunFailed: If the sweep fails.
      KeyboardInterrupt: On Ctrl-C; finished units are kept.
    """
    first = jax.process_index() == 0
    errors = console(sys.stderr)
    if first:
        for part in job.study.parts:
            errors.print(f"{part.name}: {part.plan.explain()}", markup=False)
    start = time.perf_counter()
    folder = command.out / job.name
    try:
        found = _run(job, errors, first)
    except KeyboardInterrupt:
        print(
            f"jeff: what is finished is kept in {folder}; the same command goes on",
            file=sys.stderr,
        )
        raise
    except ValueError as error:
        raise BadInput(one_line(error)) from error
    except Exception as error:
        raise RunFailed(f"sweep: {one_line(error)}") from error
    if not first:
        return 0
    outcome = study_outcome(job.study, found)
    record = _record(command, job, time.perf_counter() - start, outcome)
    details = Details(tables=outcome.tables, figures=outcome.figures)
    text = write_run(folder, record, details)
    if command.json:
        sys.stdout.write(text)
    else:
        sweep_table.print_curve(job.study, found, console(sys.stdout))
        if found.maps:
            sweep_table.print_layers(found, console(sys.stdout))
        for note in (job.about, *outcome.notes):
            print(note)
    report = page.write_report(command.out, registry)
    print(f"report: {report}", file=sys.stderr if command.json else sys.stdout)
    return 0


def _golden(
    command: arguments.Sweep, found: Network, batch: int
) -> tuple[Any, Examples]:
    """Params as they are stored, and what the network answers without faults."""
    try:
        params = stored_as(found.apply, found.params, found.inputs, command.stored)
        data = examples(found.apply, params, found.inputs, found.labels, batch=batch)
    except ValueError as error:
        raise BadInput(one_line(error)) from error
    except Exception as error:
        raise RunFailed(f"{command.model}: {one_line(error)}") from error
    return params, data if found.labels is not None else data._replace(labels=None)


def _run(job: Job, errors: Any, first: bool) -> Any:
    if not first:
        return run_study(job.study, NoProgress())
    with shown(job.name, errors, counted=True) as bars, heard(bars) as told:
        return run_study(
            job.study, told, begin=lambda p: bars.count(p.name, p.faults, "faults")
        )


def _settings(command: arguments.Sweep) -> StudySettings:
    plan = command.plan
    return StudySettings(
        fault=command.fault,
        fault_settings=_fault_settings(command),
        on=command.on,
        rates=_rates(command.rates),
        trials=command.trials,
        where=command.where,
        permanent=command.permanent,
        margin=command.margin,
        margin_method=command.margin_method,
        level=command.level,
        map_trials=command.map_trials if command.map else 0,
        feature_bits=command.feature_bits,
        over=int(plan) if plan and plan.isdecimal() else plan,
        unit=command.unit,
        batch=command.batch,
    )


def _fault_settings(command: arguments.Sweep) -> dict[str, Any]:
    """What is set of the fault model, by name."""
    kinds, given = named_fault(command.fault).settings, {}
    for change in command.changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise BadInput(f"argument --set: {change!r} is not name=value")
        try:
            given[name] = parse_value(text, kinds.get(name, str))
        except ValueError as error:
            raise BadInput(f"argument --set {change}: {error}") from None
    return given


def _rates(text: str | None) -> tuple[float, ...]:
    """Numbers between commas."""
    rates = []
    for word in [] if text is None else text.split(","):
        try:
            rates.append(float(word))
        except ValueError:
            raise BadInput(f"argument --rates: {word!r} is not a number") from None
    return tuple(rates)


def _check_out(out: pathlib.Path, name: str) -> None:
    """Refuses a place that cannot be written; leaves nothing there."""
    for place in (out, out / name):
        if place.exists() and not place.is_dir():
            raise BadInput(f"argument --out: {str(place)!r} is a file, not a folder")
    try:
        check_place(out)
    except OSError as error:
        reason = error.strerror or one_line(error)
        text = f"argument --out: cannot write to {str(out)!r}: {reason}"
        raise BadInput(text) from error


def _record(command, job, seconds, outcome) -> dict[str, Any]:
    settings = dataclasses.asdict(job.study.settings)
    given = settings.pop("fault_settings")
    settings |= {f"set.{name}": value for name, value in given.items()}
    settings |= {
        "model": command.model, "images": len(job.study.data.labels),
        "stored": command.stored, "rates": list(job.study.settings.values),
        "on": job.study.settings.target,
    }  # fmt: skip
    settings |= {
        f"plan.{part.name}": part.plan.explain().splitlines()[0]
        for part in job.study.parts
    }
    settings["command"] = _command(command)
    settings["title"] = f"{job.study.fault.name} in {command.model}"
    settings["summary"] = job.about
    return {
        "format": RESULT_FORMAT,
        "system": job.name,
        "preset": "none",
        "settings": settings,
        "seed": command.seed,
        "versions": versions(),
        "device": device(),
        "seconds": round(seconds, 3),
        "measures": [dataclasses.asdict(m) for m in outcome.measures],
        "notes": [job.about, *outcome.notes],
    }


def _command(command: arguments.Sweep) -> str:
    """What was typed, without where results go."""
    words = ["jeff", "sweep", command.model]
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if field.name in ("model", "out", "json", "distributed"):
            continue
        if field.name == "set":
            words += ["--set", *command.changes] if value else []
            continue
        if value != field.default:
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)
