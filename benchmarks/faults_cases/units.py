"""jeff's side of the timed cases: compiled units of sweeps, as programs to time."""

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jeff import sweep
from jeff.sweep.engine.execute import Devices
from jeff.sweep.planning import choose, memory
from jeff.sweep.planning.arguments import checked
from jeff.sweep.planning.unit import compiled
from pallas_kernels import timing

__all__ = ["Built", "Case", "Made", "build", "make", "one_weight_flip"]

MOST = 2**14
"""Units of a campaign at most."""


class Case(NamedTuple):
    """A campaign to time.

    Attributes:
      trial: What one trial does.
      data: Its examples.
      rate: The rate; the campaign's own largest one.
      unit: Trials of a compiled unit.
      batch: Examples at a time.
      over: As in `jeff.sweep.make_plan`; ``None``: as the sweep chooses.
      counted: What a trial counts for: 1 model, or its faulty inferences.
    """

    trial: sweep.Trial
    data: Any
    rate: float
    unit: int
    batch: int
    over: str | int | None
    counted: int


class Made(NamedTuple):
    """A compiled case.

    Attributes:
      program: To be timed; its products are what is counted.
      compile_seconds: Tracing, planning and compiling, for all devices.
      temporary_bytes: Intermediate results of a unit, as the compiler plans them.
      plan: How it runs, in words.
    """

    program: timing.Program
    compile_seconds: float
    temporary_bytes: int | None
    plan: str


class Built(NamedTuple):
    """A campaign, compiled for all devices of this process.

    Attributes:
      devices: What computes its units.
      compile_seconds: As in `Made`.
      temporary_bytes: As in `Made`.
      plan: As in `Made`.
    """

    devices: Devices
    compile_seconds: float
    temporary_bytes: int | None
    plan: str


def build(case: Case, key: jax.Array) -> Built:
    """Plans and compiles a case.

    Args:
      case: The campaign.
      key: Key of its draws.

    Returns:
      What computes its units.
    """
    places = tuple(jax.local_devices())
    start = time.perf_counter()
    swept = checked(
        case.trial, key, rates=[case.rate], trials=case.unit * MOST, data=case.data
    )
    prepared = choose.prepare(
        swept, over=case.over, unit=case.unit, batch=case.batch, devices=places
    )
    if prepared.executable is None:
        plan, first = prepared.plan, places[0]
        made = compiled(swept, prepared.traced, plan.group, plan.unit, first)
        prepared = prepared._replace(executable=made)
    devices = Devices(swept, prepared, places)
    return Built(
        devices,
        time.perf_counter() - start,
        memory.temporary_bytes(prepared.executable),
        prepared.plan.explain().split("\n")[0],
    )


def make(case: Case, key: jax.Array, seconds: float) -> Made:
    """Compiles a case for all devices of this process.

    Args:
      case: The campaign.
      key: Key of its draws.
      seconds: About how long a run is to take.

    Returns:
      What is timed: starting units on all devices, and fetching their statistics to
      the host, as `jeff.sweep.run` does; every trial draws its own faults.
    """
    built = build(case, key)
    devices, in_flight = built.devices, 2 * len(jax.local_devices())

    def run(count: int) -> list:
        return list(devices.compute(range(count), in_flight))

    few = len(jax.local_devices())
    _refuse_lost(run(few))
    start = time.perf_counter()
    run(few)
    rounds = max(1, round(seconds / (time.perf_counter() - start)))
    count = min(rounds * few, MOST)
    program = timing.Program(
        first=lambda: None,
        run=lambda: run(count),
        products=case.counted * case.unit * count,
        sets=1,
        nbytes=0,
    )
    return Made(program, built.compile_seconds, built.temporary_bytes, built.plan)


def plain(run: Any, products: int, seconds: float) -> timing.Program:
    """A function as a program that calls it as often as fills the time.

    Args:
      run: Waits for its result.
      products: What is counted, of one call.
      seconds: About how long a run is to take.

    Returns:
      The program.
    """
    run()
    start = time.perf_counter()
    run()
    calls = max(1, math.ceil(seconds / (time.perf_counter() - start)))
    return timing.Program(
        first=lambda: None,
        run=lambda: [run() for _ in range(calls)],
        products=products * calls,
        sets=1,
        nbytes=0,
    )


def one_weight_flip(params: Any, where: Any, apply: Any) -> sweep.Trial:
    """One random bit flip of a weight's code per trial, each fault equally likely.

    Args:
      params: What is hit.
      where: Which leaves, as in `jeff.sweep.enumerate_faults`.
      apply: ``apply(params, inputs)``: the program, or its end.

    Returns:
      The trial; its statistics are a `jeff.sweep.Outcome`.
    """
    space = sweep.enumerate_faults(params, where=where)

    def draw(key, rate, design):
        del rate, design
        number = jax.random.randint(key, (), 0, len(space))
        return sweep.flip_one(params, number, space)

    def evaluate(faulty, batch):
        data = batch.data
        logits = apply(faulty, data.inputs)
        return sweep.outcome(logits, data.golden, data.labels, batch.valid)

    return sweep.Trial(draw, evaluate)


def _refuse_lost(results: list) -> None:
    lost = sum(int(np.sum(s["overflow"])) for _, s in results)
    if lost:
        raise SystemExit(f"{lost} images lack faults: a sampler's buffer was too short")
