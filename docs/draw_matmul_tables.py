"""Table of a record of products with drawn matrices."""

import pathlib
import runpy
from typing import Any

from jeff.cli.quantity import estimate, quantity

__all__ = ["drawn"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
_DRAWS = ("words", "normals")


def drawn(record: dict[str, Any]) -> str:
    """A line per product and implementation, and per kind of draws alone.

    Args:
      record: Made by ``jeff bench draw-matmul``.

    Returns:
      Markdown.

    Examples:
      >>> def measure(name, value, low, high, unit):
      ...     return {"name": name, "value": value, "low": low, "high": high,
      ...             "unit": unit}
      >>> record = {"preset": "small", "device": "cpu x 1", "notes": [], "measures": [
      ...     measure("seconds.xla.20x6.t4", 2e-3, 1e-3, 3e-3, "s"),
      ...     measure("words_share.xla.20x6.t4", 0.5, 0.4, 0.6, "fraction")],
      ...     "versions": {"jax": "0.10.2"}}
      >>> print(drawn(record).splitlines()[2])
      | 20 x 6, 4 voters | `xla` | 2.00 ms [1.00, 3.00] | 4.17 s | 50.0 % [40.0, 60.0]
      |  |  |
    """
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| product | implementation | time [95 %] | a million draws | of the words' "
        "speed | of the normals' speed | time over the first line's |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    prefix = "seconds."
    for name in (n for n in found if n.startswith(prefix)):
        implementation, _, case = name.removeprefix(prefix).partition(".")
        shape, _, voters = case.partition(".t")
        rows, columns = shape.split("x")
        draws = int(rows) * int(columns) * int(voters)
        named = f"`{implementation}`"
        if implementation in _DRAWS:
            named = f"{implementation} alone"
        rest = f"{implementation}.{case}"
        cells = (
            f"{rows} x {columns}, {voters} voters",
            named,
            _text(found[name]),
            quantity(float(f"{found[name]['value'] / draws * 1e6:.3g}"), "s"),
            *(_text(found.get(f"{kind}_share.{rest}")) for kind in _DRAWS),
            _text(found.get(f"ratio.{rest}")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    made = _LINES["made"]("jeff bench draw-matmul", record, default="small")
    return "\n".join([*lines, "", *_LINES["noted"](record), "", made])


def _text(m: dict[str, Any] | None) -> str:
    """A measure with its interval, nothing if it is not there."""
    if m is None:
        return ""
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
    return " ".join(part for part in (number, suffix, ends) if part)
