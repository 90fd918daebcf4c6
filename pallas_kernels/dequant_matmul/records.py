"""What the benchmark found, as a record: plain data for JSON, tables and plots.

A record has the fields of every result of the project (`jeff.io`); what it does not
hold was not measured.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from pallas_kernels import timing
from pallas_kernels.bench_records import absent, frame, measure, plain
from pallas_kernels.dequant_matmul.bench import TOLERANCES, Report, Row

__all__ = ["NAME", "floor_seconds", "measures", "notes", "record"]

NAME = "dequant_matmul"
"""Name of the record."""

_OWN = ("mosaic_gpu", "xla", "decode_first", "dense")


def floor_seconds(row: Row, stream: timing.Spread) -> float:
    """The least time that reading the weights once takes.

    Args:
      row: A result.
      stream: Bytes per second of reading.
    """
    return row.nbytes / stream.median


def record(
    report: Report,
    *,
    preset: str,
    seed: int,
    versions: Mapping[str, str],
    device: str,
    remarks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The record of a benchmark.

    Args:
      report: What was found.
      preset: Name of the settings it started from.
      seed: Of weights and activations.
      versions: Version by name of what it was made with.
      device: Kind and number of devices.
      remarks: Further sentences a reader must know, such as what else the machine did.

    Returns:
      A dictionary. ``settings`` also holds ``status``: ``"measured"``, or
      ``"incomplete"`` if anything but a peer was wrong or absent.
    """
    complete = all(
        row.status == "measured" for row in report.rows if row.implementation in _OWN
    )
    return frame(
        NAME,
        preset=preset,
        settings={
            **dataclasses.asdict(report.settings),
            "backend": report.backend,
            "x_dtype": report.dtype,
            "cache_bytes": report.cache,
            "tuned": report.tuned,
        },
        complete=complete,
        seed=seed,
        versions=versions,
        device=device,
        seconds=report.seconds,
        measures=measures(report),
        notes=[*notes(report), *remarks],
    )


def measures(report: Report) -> list[dict[str, Any]]:
    """The numbers of a record, named ``KIND.IMPLEMENTATION.CASE``.

    Args:
      report: What was found.

    Returns:
      For every product: ``bytes``; for every implementation ``error``, ``seconds`` (of
      a packed one beside the bytes floor), ``bandwidth_share`` (of a packed one);
      ``ratio.PEER.CASE``, seconds of a peer over those of the implementation that
      `dequant_matmul` picks, in the same round.
    """
    found = [measure("streaming_read", "B/s", report.stream)]
    for case, group in itertools.groupby(report.rows, lambda row: row.case):
        rows = list(group)
        own = rows[0]
        found.append(plain(f"bytes.{case.name}", own.nbytes, "bytes"))
        for row in rows:
            name = f"{row.implementation}.{case.name}"
            if row.error is not None and np.isfinite(row.error):
                found.append(plain(f"error.{name}", row.error))
            if row.seconds is None:
                continue
            packed = row.implementation != "dense"
            floor = floor_seconds(row, report.stream)
            found.append(measure(f"seconds.{name}", "s", row.seconds, baseline=floor))
            if packed:
                shares = floor / np.array(row.samples)
                share = timing.spread(shares)
                found.append(measure(f"bandwidth_share.{name}", "fraction", share))
            if row is not own and own.seconds is not None:
                ratios = np.array(row.samples) / np.array(own.samples)
                found.append(measure(f"ratio.{name}", "", timing.spread(ratios)))
    return found


def notes(report: Report) -> list[str]:
    """What a reader of the numbers must know.

    Args:
      report: What was found.
    """
    settings = report.settings
    said = [
        "case KxN.wB.mM: weight [K, N] of B bits, a 16-bit scale and an 8-bit zero "
        f"point per group of {settings.group_size}; M rows of {report.dtype} x.",
        "seconds: per product, wall-clock of a compiled chain in which every product "
        "takes the result of the one before and another set of weights; value: median, "
        "low, high: 95 % interval of the median by its ranks; baseline: bytes of the "
        "weights over the streaming read.",
        "error: largest error relative to |x||W|, against float64, checked before "
        f"timing (at most {TOLERANCES[report.dtype]:.1e}).",
        "ratio.PEER.CASE: seconds of the peer over those of the implementation that "
        "dequant_matmul picks by itself, in the same round: larger than 1 where jeff "
        "is faster. decode_first dequantizes the whole weight, dense keeps it dense.",
    ]
    short = [
        row for row in report.rows
        if row.seconds and row.sets * row.nbytes < 2 * report.cache
    ]  # fmt: skip
    if short:
        least = min(row.sets * row.nbytes for row in short)
        said.append(
            f"The last-level cache has {report.cache / 1e6:.0f} MB: weights in "
            f"rotation ({least / 1e6:.1f} MB and up) may have been read from it."
        )
    if report.backend != "gpu":
        said.append("GPU: not measured here.")
    for row in report.rows:
        if row.status == "wrong":
            said.append(
                f"{row.case.name}: {row.implementation} is wrong, not timed: error "
                f"{row.error:.1e} of |x||W|."
            )
    said += absent(report.rows, lambda row: row.implementation, "products")
    return said
