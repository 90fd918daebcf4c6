"""The table of the record of sweep plans: trials together, in groups, one by one."""

import pathlib
import runpy
from typing import Any

from jeff.cli.quantity import quantity

__all__ = ["sweep_plan"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
_WAYS = {"map": "one by one", "groups": "in groups", "vmap": "together"}


def sweep_plan(record: dict[str, Any]) -> str:
    """The record as a table: a line per case, the plan's way in bold.

    Args:
      record: Made by ``benchmarks/sweep_plan.py``.

    Returns:
      Markdown.

    Examples:
      >>> def measure(name, value):
      ...     return {"name": name, "value": value, "low": value / 2, "high": 2 * value}
      >>> record = {"device": "cpu x 1", "versions": {}, "notes": [], "measures": [
      ...     measure("seconds.map.products.weights.sparse.batch16", 0.002),
      ...     measure("seconds.vmap.products.weights.sparse.batch16", 0.003),
      ...     measure("ratio.vmap.products.weights.sparse.batch16", 1.5)]}
      >>> print(sweep_plan(record).splitlines()[2])
      | products | weights | sparse | 16 | **2 ms** |  | 3 ms, 1.50 [0.75, 3.00] |  |
    """
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| layers | what differs | drawn | examples "
        + "".join(f"| {way} " for way in _WAYS.values())
        + "| processor time |",
        "| --- | --- | --- | ---: " + "| --- " * len(_WAYS) + "| --- |",
    ]
    prefix = "seconds.map."
    for case in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        *what, examples = case.split(".")
        layers, differs, drawn = what if len(what) == 3 else (*what, "")
        cells = (
            layers,
            differs,
            drawn,
            examples.removeprefix("batch"),
            *(_cell(found, way, case) for way in _WAYS),
            _ratio(found.get(f"processor_ratio.{case}")),
        )
        lines.append("| " + " | ".join(cells) + " |")
    made = _LINES["made"]("python benchmarks/sweep_plan.py", record)
    return "\n".join([*lines, "", *_LINES["noted"](record), "", made])


def _cell(found: dict[str, dict[str, Any]], way: str, case: str) -> str:
    time = found.get(f"seconds.{way}.{case}")
    if time is None:
        return ""
    text = quantity(time["value"], "s")
    ratio = found.get(f"ratio.{way}.{case}")
    if ratio is None:
        return f"**{text}**"
    return f"{text}, {_ratio(ratio)}"


def _ratio(m: dict[str, Any] | None) -> str:
    return "" if m is None else f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"
