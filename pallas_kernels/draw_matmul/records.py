"""What the benchmark found, as a record: plain data for JSON, tables and plots."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from pallas_kernels import timing
from pallas_kernels.bench_records import absent, frame, measure, plain
from pallas_kernels.draw_matmul.bench import DRAWS, TOLERANCE, Report, Row

__all__ = ["NAME", "measures", "notes", "record", "share"]

NAME = "draw_matmul"
"""Name of the record."""


def share(row: Row, draws: Row) -> timing.Spread | None:
    """The share of a random-number throughput that a product reaches.

    Args:
      row: A product.
      draws: The same draws alone.

    Returns:
      Seconds of the draws over those of the product, round by round; ``None`` if either
      was not measured.
    """
    if not row.samples or not draws.samples:
        return None
    return timing.spread(np.array(draws.samples) / np.array(row.samples))


def record(
    report: Report,
    *,
    preset: str,
    seed: int,
    versions: Mapping[str, str],
    device: str,
) -> dict[str, Any]:
    """The record of a benchmark.

    Args:
      report: What was found.
      preset: Name of the settings it started from.
      seed: Of keys, weights and x.
      versions: Version by name of what it was made with.
      device: Kind and number of devices.

    Returns:
      A dictionary. ``settings`` also holds ``status``: ``"measured"``, or
      ``"incomplete"`` if anything was wrong or absent.
    """
    complete = all(row.status == "measured" for row in report.rows)
    return frame(
        NAME,
        preset=preset,
        settings={
            **dataclasses.asdict(report.settings),
            "backend": report.backend,
        },
        complete=complete,
        seed=seed,
        versions=versions,
        device=device,
        seconds=report.seconds,
        measures=measures(report),
        notes=notes(report),
    )


def measures(report: Report) -> list[dict[str, Any]]:
    """The numbers of a record, named ``KIND.IMPLEMENTATION.CASE``.

    Args:
      report: What was found.

    Returns:
      For every product and implementation ``error``, ``seconds``, ``words_share`` and
      ``normals_share``; ``seconds.words`` and ``seconds.normals`` of the draws alone;
      ``ratio.IMPLEMENTATION.CASE``, seconds of another implementation over those of the
      one that `draw_matmul` picks, in the same round.
    """
    found = []
    for case, group in itertools.groupby(report.rows, lambda row: row.case):
        rows = {row.implementation: row for row in group}
        own = next(iter(rows.values()))
        for row in rows.values():
            name = f"{row.implementation}.{case.name}"
            if row.error is not None and np.isfinite(row.error):
                found.append(plain(f"error.{name}", row.error))
            if row.seconds is None:
                continue
            found.append(measure(f"seconds.{name}", "s", row.seconds))
            if row.implementation in DRAWS:
                continue
            for kind in DRAWS:
                reached = share(row, rows[kind])
                if reached is not None:
                    found.append(measure(f"{kind}_share.{name}", "fraction", reached))
            if row is not own and own.samples:
                ratios = np.array(row.samples) / np.array(own.samples)
                found.append(measure(f"ratio.{name}", "", timing.spread(ratios)))
    return found


def notes(report: Report) -> list[str]:
    """What a reader of the numbers must know.

    Args:
      report: What was found.
    """
    said = [
        "case KxN.tT: mean and standard deviation [K, N], a row x and T voters, in "
        "float32.",
        "seconds: per product, wall-clock of a compiled chain in which every product "
        "takes the mean of the voters of the one before; value: median, low, high: "
        "95 % interval of the median by its ranks.",
        "error: largest error of three voters relative to |x| (|mean| + std |H|), "
        f"against float64, checked before timing (at most {TOLERANCE:.1e}).",
        "words, normals: the same draws by jax.random.bits and jax.random.normal, a "
        "number per column made of them and nothing multiplied; words_share, "
        "normals_share: their seconds over those of the product, in the same round.",
        "ratio.IMPLEMENTATION.CASE: its seconds over those of the implementation that "
        "draw_matmul picks by itself, in the same round.",
    ]
    if report.backend != "gpu":
        said.append("GPU: not measured here.")
    for row in report.rows:
        if row.status == "wrong":
            said.append(
                f"{row.case.name}: {row.implementation} is wrong, not timed: relative "
                f"error {row.error:.1e}."
            )
    return said + absent(report.rows, lambda row: row.implementation, "products")
