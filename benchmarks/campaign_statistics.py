"""How often the intervals of campaigns hold the truth, and how much campaigns save.

    python benchmarks/campaign_statistics.py

Campaigns whose truth is known, by enumeration where there are few enough outcomes and
else by simulation: rules that stop (`jeff.sweep.Margin`), means over faulty devices,
accuracy on other images, strata, and campaigns on a small net all of whose faults are
tried. The numbers are those of `docs/statistics.md`; they depend on the seed alone, not
on how many processes share the work.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable

import jax
import tyro
from statistics_cases import means, stopping, strata

from jeff import io
from jeff.evaluate import Measure

RECORDS = pathlib.Path(__file__).resolve().parent / "records"
LOOKED_AT = (0.003, 0.01, 0.03, 0.1, 0.3, 0.5)
STOPPED_AT = (0.003, 0.01, 0.03, 0.1, 0.5)
UNITS = (100, 500)
METHODS = ("empirical_bernstein", "student_t")
DEVICES = (4, 8, 16, 32, 64)
FAILING = (0.01, 0.03, 0.1, 0.3, 0.6)
TOTALS = (200, 1000, 4000)
NET = {300: 5, 3000: 20}  # injections of the main run, into every kind before it
NOTES = [
    "looks_held.INTERVAL.RATE: no one of 30 looks, every 100 injections, misses the "
    "event rate; enumerated.",
    "stop_injections and stop_held.UNIT.RATE: when `Margin` stops at ±1 %, with looks "
    "every UNIT injections, on average, and whether its interval holds the rate there; "
    "enumerated.",
    "stop_missed and stop_devices.METHOD.DEVICES: simulated campaigns with looks every "
    "64 devices, 1,000 at most, that stop at ±5 %; how many miss the mean of the "
    "devices, and their mean number of devices.",
    "means_missed.INTERVAL.LOSS.DEVICES.SHARE: simulated campaigns over so many "
    "devices of an accuracy of 0.9, of which a share loses half of it, or a part u^3 "
    "of it (u uniform, skewed).",
    "images_held.INTERVAL.CASE: simulated campaigns, new devices and new images every "
    "time.",
    "strata_held.INTERVAL.TOTAL: simulated campaigns of 40 strata.",
    "net_variance.KIND.BUDGET: of the page's net, mean squared error over the variance "
    "of a plain sample of as many injections, pilots included.",
    "Shares of simulated campaigns have Wilson's interval of 95 %, or Clopper and "
    "Pearson's where there are few.",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """How many campaigns there are, and where the record goes."""

    campaigns: int = 10_000
    """Simulated campaigns of every case."""
    seed: int = 0
    """Of the simulated campaigns."""
    cores: int = len(os.sched_getaffinity(0))
    """Processes that share the work."""
    remark: tuple[str, ...] = ()
    """Sentences for the record."""
    out: pathlib.Path = RECORDS / "campaign_statistics.json"
    """The record."""


def cases(seed: int, campaigns: int) -> list[Callable[[], list[Measure]]]:
    """What is computed, the longest first; each part by itself."""
    how = {"seed": seed, "campaigns": campaigns}
    part = functools.partial
    return [
        *(part(stopping.stopped, r, u) for r in STOPPED_AT[::-1] for u in UNITS),
        *(
            part(stopping.stopped_by_devices, method, kind, **how)
            for method in METHODS
            for kind in stopping.DEVICES
        ),
        *(
            part(means.device_means, loss, devices, FAILING, **how)
            for loss in means.LOSSES
            for devices in DEVICES
        ),
        *(part(means.images, case, **how) for case in means.IMAGES),
        *(part(strata.forty_strata, total, **how) for total in TOTALS),
        *(part(strata.net, *budget, **how) for budget in NET.items()),
        *(part(stopping.looked_at, rate) for rate in LOOKED_AT),
    ]


def only_cpu() -> None:
    """What a process does before its first case."""
    jax.config.update("jax_platforms", "cpu")


def computed(case: Callable[[], list[Measure]]) -> list[Measure]:
    """The measures of one case."""
    return case()


def main(arguments: Arguments) -> None:
    """Runs all cases and writes the record."""
    start, found = time.perf_counter(), []
    todo = cases(arguments.seed, arguments.campaigns)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        arguments.cores, spawn, only_cpu
    ) as pool:
        for measures in pool.map(computed, todo):
            found += measures
            for m in measures:
                print(f"{m.name:>55} {m.value:.4g}", flush=True)
    record = {
        "format": io.RESULT_FORMAT,
        "system": "campaign_statistics",
        "preset": "default",
        "settings": {
            "campaigns": arguments.campaigns,
            "looked_at": list(LOOKED_AT),
            "stopped_at": list(STOPPED_AT),
            "units": list(UNITS),
            "devices": list(DEVICES),
            "failing": list(FAILING),
            "totals": list(TOTALS),
            "net": [list(budget) for budget in NET.items()],
        },
        "seed": arguments.seed,
        "versions": io.versions(),
        "device": f"cpu, {arguments.cores} cores",
        "seconds": round(time.perf_counter() - start, 3),
        "measures": [dataclasses.asdict(m) for m in found],
        "notes": [*NOTES, *arguments.remark],
    }
    io.validate_result(record)
    io.write_atomically(arguments.out, io.result_text(record))
    print(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
