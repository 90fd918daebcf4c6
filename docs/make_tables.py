"""Fills the generated tables of README and docs from the records of measurements.

Between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->`` stands a table of
``benchmarks/records/NAME.json``. Usage: ``python docs/make_tables.py [--check]``; with
``--check`` nothing is written, and a table that is out of date is an error.
"""

import pathlib
import re
import sys
from typing import Any

from jeff.cli.quantity import estimate, quantity
from jeff.io import read_result

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
MARKED = re.compile(
    r"(?P<open><!-- results:(?P<name>[\w.-]+) -->\n)"
    r".*?"
    r"(?P<close><!-- /results:(?P=name) -->)",
    re.DOTALL,
)


def table(record: dict[str, Any]) -> str:
    """A record as a Markdown table, with the command that makes it again.

    Examples:
      >>> measure = dict.fromkeys(["baseline", "paper", "low", "high", "trials"])
      >>> measure |= {"name": "accuracy.mbq", "value": 0.5, "unit": "fraction"}
      >>> print(table({"system": "mbq", "preset": "default", "seed": 0,
      ...     "device": "cpu x 1", "versions": {"jax": "0.10.2"}, "seconds": 41.3,
      ...     "measures": [measure]}).splitlines()[2])
      | `accuracy.mbq` | 50 % |  |  |  |
    """
    lines = [
        "| measure | result | 95 % interval | baseline | the paper's claim |",
        "| --- | ---: | --- | ---: | --- |",
    ]
    for m in record["measures"]:
        unit = m["unit"]
        number, suffix, ends = estimate(m["value"], m["low"], m["high"], unit)
        cells = (
            f"`{m['name']}`",
            f"{number} {suffix}".strip(),
            ends,
            "" if m["baseline"] is None else quantity(m["baseline"], unit),
            "" if m["paper"] is None else quantity(m["paper"], unit),
        )
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    notes = [f"- {note}" for note in record.get("notes", ())]
    if notes:
        lines += ["", *notes]
    lines += [
        "",
        f"Made by `jeff run {record['system']} --preset {record['preset']} "
        f"--seed {record['seed']}` in {record['seconds']:.0f} s on {record['device']} "
        f"({versions}).",
    ]
    return "\n".join(lines)


def filled(text: str) -> str:
    """The text with every marked table made anew."""

    def fill(match: re.Match[str]) -> str:
        file = RECORDS / f"{match['name']}.json"
        content = table(read_result(file)) if file.exists() else "No record yet."
        return f"{match['open']}\n{content}\n\n{match['close']}"

    return MARKED.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Fills, or with ``--check`` compares; returns the exit code."""
    stale = []
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        text = file.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale.append(file.relative_to(ROOT).as_posix())
            if "--check" not in arguments:
                file.write_text(new, encoding="utf-8")
    word = "out of date" if "--check" in arguments else "filled"
    print(f"{word}: {', '.join(stale)}" if stale else "tables are up to date")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
