"""What the records of `jeff bench` have in common: frame, measures, what is absent.

A record has the fields of every result of the project (`jeff.io`); what it does not
hold was not measured.
"""

import collections
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from pallas_kernels.timing import Spread

__all__ = ["absent", "frame", "measure", "plain"]

_FIELDS = ("value", "unit", "baseline", "paper", "low", "high", "trials")


def frame(
    system: str,
    *,
    preset: str,
    settings: Mapping[str, Any],
    complete: bool,
    seed: int,
    versions: Mapping[str, str],
    device: str,
    seconds: float,
    measures: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """A record.

    Args:
      system: Name of the benchmark.
      preset: Name of the settings it started from.
      settings: What it was asked for, and what it found itself on.
      complete: Whether nothing was wrong or absent.
      seed: Of all draws.
      versions: Version by name of what it was made with.
      device: Kind and number of devices.
      seconds: How long it took.
      measures: The numbers, from `plain` and `measure`.
      notes: What a reader of the numbers must know.

    Returns:
      A dictionary. ``settings`` also holds ``status`` (``"measured"`` or
      ``"incomplete"``), ``date`` and ``device_kind``.

    Examples:
      >>> made = frame(
      ...     "demo", preset="small", settings={"rows": 1}, complete=True, seed=0,
      ...     versions={}, device="cpu x 1", seconds=1.0, measures=[], notes=[],
      ... )
      >>> made["system"], made["settings"]["status"]
      ('demo', 'measured')
    """
    return {
        "format": 1,
        "system": system,
        "preset": preset,
        "settings": {
            **settings,
            "status": "measured" if complete else "incomplete",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "device_kind": jax.devices()[0].device_kind,
        },
        "seed": seed,
        "versions": dict(versions),
        "device": device,
        "seconds": round(seconds, 3),
        "measures": list(measures),
        "notes": list(notes),
    }


def plain(name: str, value: float | None, unit: str = "") -> dict[str, Any]:
    """A number without an interval.

    Args:
      name: Its name.
      value: The number; ``None`` if there is none.
      unit: Its unit.

    Returns:
      A measure of a record.

    Examples:
      >>> plain("bytes.784x200", 10.0, "bytes")["low"] is None
      True
    """
    return {**dict.fromkeys(_FIELDS), "name": name, "value": value, "unit": unit}


def measure(
    name: str, unit: str, value: Spread, baseline: float | None = None
) -> dict[str, Any]:
    """A median with its interval.

    Args:
      name: Its name.
      unit: Its unit.
      value: Median, interval and number of trials.
      baseline: What it is held against, if anything.

    Returns:
      A measure of a record.

    Examples:
      >>> from pallas_kernels.timing import spread
      >>> measure("seconds.xla", "s", spread([1.0, 2.0, 3.0]))["value"]
      2.0
    """
    return {
        **plain(name, value.median, unit),
        "baseline": baseline,
        "low": value.low,
        "high": value.high,
        "trials": value.trials,
    }


def absent(rows: Sequence[Any], label: Callable[[Any], str], noun: str) -> list[str]:
    """What was not measured and why, a sentence per reason.

    Args:
      rows: Results with a ``status``.
      label: Name of a result.
      noun: What a result is, in the plural.

    Returns:
      Sentences; those that are measured or wrong are left out.

    Examples:
      >>> import types
      >>> rows = [types.SimpleNamespace(name="torch", status="is not installed")] * 2
      >>> absent(rows, lambda row: row.name, "products")
      ['torch is not installed (2 products).']
    """
    counts = collections.Counter(
        f"{label(row)} {row.status}"
        for row in rows
        if row.status not in ("measured", "wrong")
    )
    return [f"{text} ({count} {noun})." for text, count in counts.items()]
