"""Runs a sweep: every trial of every rate and design, to the same bits however."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jeff import tree
from jeff.evaluate import NoProgress, Progress
from jeff.sweep.checks import positive
from jeff.sweep.engine.execute import Devices, layout_of
from jeff.sweep.engine.folder import SweepFolder
from jeff.sweep.engine.layout import Shapes, Table
from jeff.sweep.engine.processes import opened, together
from jeff.sweep.engine.recorded_settings import rule_of, settings_of
from jeff.sweep.engine.result import SweepResult
from jeff.sweep.engine.rounds import Work, fill
from jeff.sweep.engine.stop import Stop
from jeff.sweep.planning import choose
from jeff.sweep.planning.arguments import Sweep, checked
from jeff.sweep.planning.devices import chosen_devices
from jeff.sweep.planning.plan import Plan
from jeff.sweep.trial import Trial

__all__ = ["Ready", "finish", "run", "start"]

_IN_FLIGHT = 4  # units per device, if `chunk` is not given


class Ready(NamedTuple):
    """A sweep that is planned and, where the plan needed it, compiled.

    Attributes:
      sweep: The checked arguments.
      prepared: The plan with what was made on the way.
      devices: The devices of this process.
      folder: Where finished units are kept, or ``None``.
    """

    sweep: Sweep
    prepared: choose.Prepared
    devices: tuple[Any, ...]
    folder: SweepFolder | None

    @property
    def plan(self) -> Plan:
        """How it is computed."""
        return self.prepared.plan


def run(
    trial: Trial,
    key: jax.Array,
    *,
    rates: Sequence[float],
    trials: int,
    data: Any,
    designs: Any = None,
    unit: int | None = None,
    batch: int | None = None,
    plan: Plan | str | int | None = None,
    budget_bytes: int | None = None,
    chunk: int | None = None,
    devices: int | Sequence[Any] | Mesh | None = None,
    directory: str | os.PathLike[str] | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Runs trials of every design at every rate.

    Trial `t` draws from ``fold_in(key, t)``, whatever its rate and design: differences
    between rates and designs are differences of the same trials. What is compiled is a
    *unit*, some trials of one point over all the data; rate and design are arguments
    of it, so one compilation serves all points. Chunks, devices and processes only
    deal out whole units: on one kind of device the result is the same to the bit.

    In several processes (after `jax.distributed.initialize`) all call this function
    with the same arguments; each computes its share and all return all.

    Args:
      trial: What one trial does.
      key: A typed key.
      rates: Finite numbers from 0 on. Rates above 1 are refused by campaigns with a
        fault model that refuses them; its sigmas may be larger.
      trials: Trials of each point.
      data: A pytree of arrays ``[examples, ...]``; every trial sees all of them.
      designs: A pytree of arrays ``[designs, ...]``; each trial gets one entry.
        ``None``: one design, ``None``.
      unit: Trials of a unit; chosen if ``None``.
      batch: Examples that are evaluated at a time; chosen if ``None``.
      plan: From `make_plan`; or how the trials of a unit run: ``"vmap"``, all at a
        time, ``"map"``, one at a time, or how many at a time; chosen if ``None``. What
        `unit`, `batch` and `devices` say goes before it.
      budget_bytes: What the intermediate results of a unit may take, where `unit` or
        `batch` is chosen; as for `make_plan` if ``None``. The unit is compiled once.
      chunk: Units in flight at a time in each process; 4 per device if ``None``.
      devices: Devices of this process, or how many, or a mesh: those of its devices
        that are of this process; all if ``None``.
      directory: A folder that keeps every finished unit, so that the same call goes on
        where it was stopped, however it was. What is not given and was chosen when the
        folder was begun (`unit`, `batch`, `plan`) is taken from it. `stop` and
        `budget_bytes` are not compared: no byte of a unit depends on them, so another
        rule goes on with the same units, and gives what it gives in a new folder.
      stop: A rule that is asked for every point after each of its units; a point with
        a yes gets no more trials.
      progress: Told about every unit that is done.

    Returns:
      The statistics of every trial.

    Raises:
      TypeError: If an argument is of the wrong kind, or the statistics are not arrays
        of numbers.
      ValueError: If a value cannot be swept, shapes of statistics depend on the batch,
        or the directory is of another sweep (every field that differs is named) or
        damaged.
      OSError: If the directory cannot be written, or another sweep is writing there.
      RuntimeError: If another process failed; it is named.

    Examples:
      Bits of a byte that are set by chance; how many, over 1,000 trials:

      >>> import jax.numpy as jnp
      >>> def draw(key, rate, design):
      ...     return jax.random.bernoulli(key, rate, (8,))
      >>> def evaluate(flips, batch):
      ...     return {"flips": jnp.sum(flips) * jnp.sum(batch.valid)}
      >>> result = run(Trial(draw, evaluate), jax.random.key(0), rates=[0.0, 0.5],
      ...     trials=1000, data=jnp.zeros(1), unit=500, batch=1, plan="vmap")
      >>> print(result.stats["flips"].shape, result.stats["flips"].mean(axis=-1))
      (1, 2, 1000) [[0.    4.041]]
    """
    started = time.perf_counter()
    ready = start(
        trial, key, rates=rates, trials=trials, data=data, designs=designs, unit=unit,
        batch=batch, plan=plan, budget_bytes=budget_bytes, devices=devices,
        directory=directory, chunk=chunk,
    )  # fmt: skip
    done = finish(ready, chunk=chunk, stop=stop, progress=progress)
    return done._replace(seconds=time.perf_counter() - started)


def start(
    trial: Trial,
    key: jax.Array,
    *,
    rates: Sequence[float],
    trials: int,
    data: Any,
    designs: Any = None,
    unit: int | None = None,
    batch: int | None = None,
    plan: Plan | str | int | None = None,
    budget_bytes: int | None = None,
    devices: int | Sequence[Any] | Mesh | None = None,
    directory: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
) -> Ready:
    """Checks and plans a sweep; runs no trial and writes nothing.

    If one of several processes fails at it, all raise.

    Args:
      trial: As for `run`, and so are the others.
      key: A typed key.
      rates: Finite numbers from 0 on, as for `run`.
      trials: Trials of each point.
      data: A pytree of arrays ``[examples, ...]``.
      designs: A pytree of arrays ``[designs, ...]``, or ``None``.
      unit: Trials of a unit.
      batch: Examples at a time.
      plan: A plan, ``"vmap"``, ``"map"`` or a number.
      budget_bytes: What a unit may take.
      devices: Devices, or how many, or a mesh.
      directory: The folder.
      chunk: Only checked; it is for `finish`.

    Returns:
      What `finish` takes.

    Raises:
      TypeError: As `run`.
      ValueError: As `run`.
      OSError: If there is a file in the directory's place.
      RuntimeError: If another process failed; it is named.
    """

    def ready() -> Ready:
        if chunk is not None:
            positive("chunk", chunk)
        sweep = checked(
            trial, key, rates=rates, trials=trials, data=data, designs=designs
        )
        return _planned(sweep, plan, unit, batch, budget_bytes, devices, directory)

    return together(ready)


def _planned(sweep, plan, unit, batch, budget_bytes, devices, directory) -> Ready:
    """What `start` does once arguments are checked, in one process."""
    given = _given(plan, unit, batch)
    if isinstance(plan, Plan) and devices is None:
        devices = plan.devices
    places = chosen_devices(devices)
    folder = None if directory is None else SweepFolder(directory)
    known, reasons = _known(folder, given)
    reasons += plan.reasons if isinstance(plan, Plan) else ()
    prepared = choose.prepare(
        sweep, **known, devices=places, budget_bytes=budget_bytes, reasons=reasons
    )
    return Ready(sweep, prepared, places, folder)


def finish(
    ready: Ready,
    *,
    chunk: int | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Runs what `start` made ready; the unit that was compiled there is not again.

    Args:
      ready: From `start`.
      chunk: As for `run`, and so are the others.
      stop: A rule.
      progress: Told about every unit.

    Returns:
      The statistics of every trial.

    Raises:
      ValueError: If the directory is of another sweep or damaged.
      OSError: If it cannot be written, or another sweep is writing there.
      RuntimeError: If another process failed; it is named.
    """
    started = time.perf_counter()
    sweep, prepared, places, folder = ready
    outputs = prepared.traced.evaluate.outputs

    def begin() -> tuple[dict[str, Any], Table]:
        layout = layout_of(sweep, prepared.plan.unit)
        return settings_of(sweep, prepared, places[0]), Table(layout, _shapes(outputs))

    settings, table = together(begin)
    with opened(folder, settings, rule_of(stop)):
        work = Work(
            table=table,
            structure=jax.tree.structure(outputs),
            folder=folder,
            make_devices=lambda: Devices(sweep, prepared, places),
            chunk=chunk or _IN_FLIGHT * len(places),
            progress=progress or NoProgress(),
        )
        fill(work, stop)
    return SweepResult(
        work.tree(work.table.stats), sweep.rates, work.table.trials_done,
        ready.plan, settings, time.perf_counter() - started,
    )  # fmt: skip


def _given(plan: Any, unit: int | None, batch: int | None) -> dict[str, Any]:
    """What the caller says of over, unit and batch."""
    if isinstance(plan, Plan):
        unit = plan.unit if unit is None else unit
        batch = plan.batch if batch is None else batch
        plan = plan.group
    return {"over": plan, "unit": unit, "batch": batch}


def _known(
    folder: SweepFolder | None, given: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the caller does not say is as the folder was begun with."""
    there = (None if folder is None else folder.begun()) or {}
    settings = {"over": "group", "unit": "unit", "batch": "batch"}
    taken = {
        name: there[setting]
        for name, setting in settings.items()
        if given[name] is None and setting in there
    }
    if not taken:
        return given, ()
    words = ", ".join(f"{settings[name]}={value}" for name, value in taken.items())
    return given | taken, (f"The directory was begun with {words}.",)


def _shapes(outputs: Any) -> Shapes:
    leaves = tree.flatten(outputs)[0]
    return {n: (tuple(s.shape), np.dtype(s.dtype)) for n, s in leaves.items()}
