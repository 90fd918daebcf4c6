"""The table of the record of temporary memory by the share that is memorised."""

import pathlib
import re
import runpy
from typing import Any

from jeff.cli.quantity import quantity

__all__ = ["bnn_memory"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
_CASE = re.compile(
    r"(?P<kind>temp|beta)_bytes\.(?P<case>\w+?)_b(?P<rows>\d+)_alpha_(?P<alpha>.+)"
)


_SAMPLED = re.compile(
    r"temp_bytes\.(?P<mode>lrt|flipout)_b(?P<rows>\d+)_chunk_(?P<chunk>default|all)"
)


def bnn_memory(record: dict[str, Any]) -> str:
    """The record as a table: a line per share, a column per program and batch.

    Args:
      record: Made by ``benchmarks/bnn_memory.py``.

    Returns:
      Markdown.

    Examples:
      >>> record = {"device": "cpu x 1", "versions": {}, "notes": [], "measures": [
      ...     {"name": "temp_bytes.layer_b1_alpha_0.5", "value": 2e6, "unit": "bytes"},
      ...     {"name": "beta_bytes.layer_b1_alpha_0.5", "value": 1e6, "unit": "bytes"},
      ... ]}
      >>> for line in bnn_memory(record).splitlines()[:3]:
      ...     print(line)
      | `alpha` | 1 row: beta | layer |
      | ---: | ---: | ---: |
      | 0.5 | 1 MB | 2 MB |
    """
    cells: dict[str, dict[tuple[int, str], float]] = {}
    for m in record["measures"]:
        if match := _CASE.fullmatch(m["name"]):
            row = cells.setdefault(match["alpha"], {})
            kind = "" if match["kind"] == "beta" else match["case"]
            row[int(match["rows"]), kind] = m["value"]  # beta is that of any program
    columns = sorted({c for row in cells.values() for c in row})
    heads = (case or f"{n} row{'s' * (n > 1)}: beta" for n, case in columns)
    lines = [
        f"| `alpha` | {' | '.join(heads)} |",
        "| ---: |" + " ---: |" * len(columns),
    ]
    for alpha, row in cells.items():
        texts = (quantity(row[c], "bytes") for c in columns)
        lines.append(f"| {alpha} | {' | '.join(texts)} |")
    lines += _sampled(record)
    made = _LINES["made"]("python benchmarks/bnn_memory.py", record)
    return "\n".join([*lines, "", *_LINES["noted"](record), "", made])


def _sampled(record: dict[str, Any]) -> list[str]:
    """Modes that do not decompose: as many voters at a time as by default, and all."""
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for m in record["measures"]:
        if match := _SAMPLED.fullmatch(m["name"]):
            row = rows.setdefault((match["mode"], match["rows"]), {})
            row[match["chunk"]] = m["value"]
    if not rows:
        return []
    lines = [
        "",
        "| mode | rows | by default | all at once |",
        "| --- | ---: | ---: | ---: |",
    ]
    for (mode, count), row in rows.items():
        texts = (quantity(row[chunk], "bytes") for chunk in ("default", "all"))
        lines.append(f"| `{mode}` | {count} | {' | '.join(texts)} |")
    return lines
