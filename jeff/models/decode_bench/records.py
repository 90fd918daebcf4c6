"""What the decoding benchmark found, as a record: plain data for JSON and tables."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jeff.models.decode_bench.bench import TOLERANCES, Report, Row
from jeff.models.decode_bench.workload import DECODERS, group_size
from pallas_kernels import timing
from pallas_kernels.bench_records import absent, frame, measure, plain

__all__ = ["NAME", "measures", "notes", "record"]

NAME = "decode"
"""Name of the record."""

_CITED = {
    ("decode", "dense", 1): 29.6,
    ("decode", "w3", 1): 21.1,
    ("decode", "w4a8", 1): 26.3,
    ("prefill", "dense", 512): 68.8,
    ("prefill", "w4a8", 512): 59.4,
    ("prefill", "dense", 1024): 109.0,
    ("prefill", "w4a8", 1024): 92.7,
}
"""Milliseconds of LLaVA-OneVision-7B on an RTX 4090 (arXiv 2412.19509, section 4.4)."""

_NAMES = {"decode": ("ms_per_token", "b"), "prefill": ("prefill_ms", "n")}


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
      seed: Of the weights.
      versions: Version by name of what it was made with.
      device: Kind and number of devices.
      remarks: Further sentences a reader must know, such as what else the machine did.

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
            "dtype": report.dtype,
            "cache_bytes": report.cache,
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
    """The numbers of a record.

    Args:
      report: What was found.

    Returns:
      ``ms_per_token.MODEL.WEIGHTS.bBATCH`` and ``prefill_ms.MODEL.WEIGHTS.nLENGTH``
      beside the time of reading the weights once, ``tokens_per_second`` of all
      sequences together, ``compile_seconds`` and ``peak_bytes`` of the same,
      ``ratio.dense.MODEL.WEIGHTS.SIZE``, the dense time over it in the same round, and
      once for every model and scheme ``weight_bytes`` and ``error``.
    """
    found = [measure("streaming_read", "B/s", report.stream)]
    once: dict[str, dict[str, Any]] = {}
    sizes = itertools.groupby(report.rows, lambda row: (row.model, row.kind, row.size))
    for (model, kind, size), group in sizes:
        rows = list(group)
        dense = rows[0]
        for row in rows:
            kept = f"{model}.{row.weights}"
            entry = plain(f"weight_bytes.{kept}", row.nbytes, "bytes")
            once.setdefault(entry["name"], entry)
            if row.error is not None and np.isfinite(row.error):
                entry = plain(f"error.{kept}", row.error)
                once.setdefault(entry["name"], entry)
            if row.seconds is None:
                continue
            found += _times(row, report, f"{kept}.{_NAMES[kind][1]}{size}")
            if row is not dense and dense.seconds is not None:
                ratios = np.array(dense.samples) / np.array(row.samples)
                name = f"ratio.dense.{kept}.{_NAMES[kind][1]}{size}"
                ratio = measure(name, "", timing.spread(ratios))
                found.append({**ratio, "paper": _cited_ratio(row)})
    return [*found, *once.values()]


def _times(row: Row, report: Report, case: str) -> list[dict[str, Any]]:
    """The measures of one row."""
    scaled = timing.spread(1e3 * np.array(row.samples))
    decodes = row.kind == "decode"
    floor = 1e3 * row.nbytes / report.stream.median if decodes else None
    paper = _CITED.get((row.kind, row.weights, row.size)) if _is_cited(row) else None
    found = [
        {
            **measure(f"{_NAMES[row.kind][0]}.{case}", "ms", scaled),
            "baseline": floor,
            "paper": paper,
        }
    ]
    if decodes:
        rates = timing.spread(row.size / np.array(row.samples))
        found.append(measure(f"tokens_per_second.{case}", "1/s", rates))
    found.append(plain(f"compile_seconds.{case}", row.compile_seconds, "s"))
    found.append(plain(f"peak_bytes.{case}", row.peak, "bytes"))
    return found


def notes(report: Report) -> list[str]:
    """What a reader of the numbers must know.

    Args:
      report: What was found.
    """
    settings = report.settings
    groups = ", ".join(f"{group_size(c)} in {name}" for name, c in settings.decoders)
    said = [
        f"Random weights; dense ones, activations and cache are {report.dtype}. "
        "Embedding and output matrix are dense in every program, as the methods of "
        "jeff.mbq leave them. Packed layers are scanned; dense ones are unrolled, "
        "which is faster for them.",
        f"w3, w4: groups of rows share a bfloat16 scale and an 8-bit zero point "
        f"({groups}). w4a8: symmetric, one scale per output channel, activations "
        "rounded to 8 bits per token, products of integers.",
        "ms_per_token.MODEL.WEIGHTS.bB: greedy decoding of B sequences, one token of "
        f"each, {settings.context} tokens in the cache at first; value: median, low, "
        "high: 95 % interval of the median by its ranks; baseline: bytes of the "
        "weights over the streaming read.",
        "prefill_ms.MODEL.WEIGHTS.nN: one prompt of N tokens, to the scores after it.",
        "ratio.dense: time with dense weights over that with packed ones, in the same "
        "round: larger than 1 where packed ones are faster.",
        "error: largest difference of a score from that by decoded weights, relative "
        "to the largest, over one layer, before timing (at most "
        f"{TOLERANCES[report.dtype]:.0e}, 2e-02 for rounded activations).",
        "peak_bytes: arguments, results and temporaries of the compiled program, as "
        "the compiler plans them; compile_seconds: lowering and compiling.",
        "The paper's claims are cited from arXiv 2412.19509, section 4.4: "
        "LLaVA-OneVision-7B on an RTX 4090, dense in float16.",
    ]
    parts = [name for name, _ in settings.decoders if name not in DECODERS]
    if parts:
        said.append(
            f"{', '.join(parts)}: that many layers at full width, and the vocabulary "
            "cut in proportion, so that the output matrix keeps its share."
        )
    small = sorted(
        {
            f"{row.model} {row.weights}"
            for row in report.rows
            if row.seconds and row.nbytes < 2 * report.cache
        }
    )
    if small:
        said.append(
            f"The last-level cache has {report.cache / 1e6:.0f} MB: weights of "
            f"{', '.join(small)} may have been read from it."
        )
    if report.backend != "gpu":
        said.append("GPU: not measured here.")
    for row in report.rows:
        if row.status == "wrong":
            said.append(
                f"{row.model} {row.kind} {row.weights} is wrong, not timed: "
                f"difference {row.error:.1e}."
            )
    said += absent(
        report.rows, lambda row: f"{row.model} {row.kind} {row.weights}", "sizes"
    )
    return list(dict.fromkeys(said))


def _is_cited(row: Row) -> bool:
    return row.model == "llava_onevision_7b"


def _cited_ratio(row: Row) -> float | None:
    """The paper's dense time over its packed one; also beside a part of the model."""
    if not row.model.startswith("llava_onevision_7b"):
        return None
    own = _CITED.get((row.kind, row.weights, row.size))
    dense = _CITED.get((row.kind, "dense", row.size))
    return None if own is None or dense is None else round(dense / own, 2)
