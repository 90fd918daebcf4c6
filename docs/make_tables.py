"""Fills the generated tables of README and docs from the records of measurements.

Between ``<!-- results:NAME -->`` and ``<!-- /results:NAME -->`` stands a table of
``benchmarks/records/NAME.json``; between the same with ``summary:NAME`` a shorter one,
with ``goals:NAME`` one of what the kernel is to reach on that device, which says "not
measured" where the record, or a number in it, is missing; ``results:NAME/PART`` takes
a part of a record. Usage: ``python docs/make_tables.py [--check]``; with ``--check``
nothing is written, and a table that is out of date is an error.
"""

import pathlib
import re
import runpy
import sys
from typing import Any

from jeff.cli.quantity import estimate, quantity
from jeff.io import read_result

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
BNN = runpy.run_path(str(pathlib.Path(__file__).with_name("bnn_tables.py")))
BNN_FASHION = runpy.run_path(
    str(pathlib.Path(__file__).with_name("bnn_fashion_tables.py"))
)
BNN_MEMORY = runpy.run_path(
    str(pathlib.Path(__file__).with_name("bnn_memory_tables.py"))
)
DIGITS = runpy.run_path(str(pathlib.Path(__file__).with_name("digits_bnn_tables.py")))
DM_BNN = runpy.run_path(str(pathlib.Path(__file__).with_name("dm_bnn_tables.py")))
DRAWN = runpy.run_path(str(pathlib.Path(__file__).with_name("draw_matmul_tables.py")))
EFFECT = runpy.run_path(str(pathlib.Path(__file__).with_name("effect_tables.py")))
FAULTS = runpy.run_path(str(pathlib.Path(__file__).with_name("fault_tables.py")))
PLANS = runpy.run_path(str(pathlib.Path(__file__).with_name("plan_tables.py")))
STATISTICS = runpy.run_path(
    str(pathlib.Path(__file__).with_name("statistics_tables.py"))
)
MARKED = re.compile(
    r"(?P<open><!-- (?P<label>(?P<kind>results|goals|summary):(?P<name>[\w.-]+)"
    r"(?:/(?P<part>\w+))?) -->\n)"
    r".*?"
    r"(?P<close><!-- /(?P=label) -->)",
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


def products(record: dict[str, Any]) -> str:
    """A record of products with packed matrices: a line per product.

    Examples:
      >>> def measure(name, value, low, high):
      ...     ends = {"low": low, "high": high}
      ...     return {"name": name, "value": value, "unit": "s", **ends}
      >>> print(products({"preset": "small", "device": "cpu x 1", "notes": ["Noisy."],
      ...     "versions": {"jax": "0.10.2"}, "settings": {"bits": [3], "rows": [1]},
      ...     "measures": [
      ...         measure("seconds.xla.64x8.w3.m1", 0.002, 0.001, 0.003),
      ...         measure("seconds.dense.64x8.w3.m1", 0.004, 0.003, 0.005),
      ...         measure("ratio.dense.64x8.w3.m1", 2.0, 1.5, 2.5),
      ...     ]}).splitlines()[2])
      | 64x8 | 3 | 1 | 2.00 ms | [1.00, 3.00] |  |  | 2.00 [1.50, 2.50] |
    """
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| K x N | bits | M | `dequant_matmul` | 95 % interval | of the floor's speed "
        "| faster than dequantizing first | faster than the dense product |",
        "| --- | ---: | ---: | ---: | --- | ---: | --- | --- |",
    ]
    seen = set()
    for name, m in found.items():
        kind, _, rest = name.partition(".")
        implementation, _, case = rest.partition(".")
        if kind != "seconds" or case in seen:
            continue
        seen.add(case)
        shape, bits, rows = case.split(".")
        number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
        share = found.get(f"bandwidth_share.{rest}")
        cells = (
            shape,
            bits[1:],
            rows[1:],
            f"{number} {suffix}",
            ends,
            "" if share is None else f"{share['value']:.0%}",
            *(
                _ratio(found.get(f"ratio.{peer}.{case}"))
                for peer in ("decode_first", "dense")
            ),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += _noted(record)
    options = "".join(
        f" --{name} {' '.join(map(str, record['settings'][name]))}"
        for name in ("bits", "rows")
    )
    return "\n".join([*lines, "", _made("dequant_matmul", record, options)])


def decoding(record: dict[str, Any]) -> str:
    """A record of decoders: a line per decoder, kind of weights and size."""
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| decoder | weights | read | time [95 %] | tokens/s | weights of a token "
        "| faster than dense | the paper's claim |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for name, m in found.items():
        kind, _, case = name.partition(".")
        if kind not in ("ms_per_token", "prefill_ms"):
            continue
        model, weights, size = case.split(".")
        rate = found.get(f"tokens_per_second.{case}")
        stored = found.get(f"weight_bytes.{model}.{weights}")
        ratio = found.get(f"ratio.dense.{case}")
        number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
        paper = None if ratio is None else ratio["paper"]
        cells = (
            model,
            weights if weights == "dense" else weights.upper(),
            f"{size[1:]} at once" if kind == "ms_per_token" else f"{size[1:]} tokens",
            f"{number} {suffix} {ends}".rstrip(),
            "" if rate is None else quantity(rate["value"]),
            "" if stored is None else quantity(stored["value"], "bytes"),
            _ratio(ratio),
            "" if paper is None else quantity(paper),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_noted(record), "", _made("decode", record)])


def integers(record: dict[str, Any]) -> str:
    """A record of products of integers: a line per product, and what is beside it."""
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| K x N | scales per | tokens | `int8` | `float` over it | decoded tiles over "
        "it | dense float32 over it |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
    ]
    prefix = "seconds.int8."
    for case in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        shape, scales, rows = case.split(".")
        ratios = (
            _ratio(found.get(f"ratio.{n}.{case}"))
            for n in ("float", "rounded", "dense")
        )
        cells = shape, scales, rows[1:], quantity(found[prefix + case]["value"], "s")
        lines.append("| " + " | ".join((*cells, *ratios)) + " |")
    return "\n".join([*lines, *_noted(record), "", _made("integer_dot", record)])


def beside_qwix(record: dict[str, Any]) -> str:
    """A record of two programs' errors: a line per method, block and kind of codes."""
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| method | block | codes | error, jeff | error, qwix | qwix's error over "
        "jeff's [95 %] | qwix's time over jeff's |",
        "| --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    prefix = "ratio.qwix.error."
    for case in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        errors = (found[f"error.{who}.{case}"]["value"] for who in ("jeff", "qwix"))
        cells = (
            *case.split("."),
            *(quantity(round(error, 4), "fraction") for error in errors),
            _ratio(found[prefix + case]),
            _ratio(found.get(f"ratio.qwix.seconds.{case}")),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_noted(record), "", _made("qwix_awq", record)])


def _noted(record: dict[str, Any]) -> list[str]:
    return ["", *_LINES["noted"](record)]


def _made(script: str, record: dict[str, Any], options: str = "") -> str:
    """The command that makes a record again."""
    return _LINES["made"](f"python benchmarks/{script}.py", record, options)


def _ratio(m: dict[str, Any] | None) -> str:
    return "" if m is None else f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]"


_GEMV = ("3584x18944", "18944x3584")
_W4 = ("humming", "torch_int4", "conch")


def goals(record: dict[str, Any] | None) -> str:
    """What the kernel is to reach on one H200, and what was measured.

    Examples:
      >>> print(goals(None).splitlines()[2])
      | W3, 3584x18944, M = 1 | at most 9.2 µs | not measured |
    """
    found = {m["name"]: m["value"] for m in record["measures"]} if record else {}

    def seconds(case, name="mosaic_gpu"):
        return found.get(f"seconds.{name}.{case}")

    rows = [
        (f"W3, {shape}, M = 1", "at most 9.2 µs", seconds(f"{shape}.w3.m1"), "s")
        for shape in _GEMV
    ]
    rows.append(
        ("W3, 3584x3584, M = 1", "at most 4 µs", seconds("3584x3584.w3.m1"), "s")
    )
    for shape in _GEMV:
        one = seconds(f"{shape}.w3.m1")
        for count, most in ((8, "1.15"), (16, "1.35")):
            more = seconds(f"{shape}.w3.m{count}")
            value = more / one if one and more else None
            what = f"W3, {shape}, M = {count} over M = 1"
            rows.append((what, f"at most {most}", value, ""))
        peers = [seconds(f"{shape}.w4.m1", name) for name in _W4]
        best = min((p for p in peers if p), default=None)
        value = best / one if best and one else None
        what = f"W3, {shape}, M = 1: fastest W4 peer over it"
        rows.append((what, "more than 1", value, ""))
        value = found.get(f"ratio.humming.{shape}.w3.m1")
        what = f"W3, {shape}, M = 1: `humming-kernels` W3 over it"
        rows.append((what, "1.3 would be a triumph", value, ""))
    lines = ["| what | goal | measured |", "| --- | --- | --- |"]
    for what, goal, value, unit in rows:
        measured = "not measured" if value is None else quantity(value, unit)
        lines.append(f"| {what} | {goal} | {measured} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    """The text with every marked table made anew."""

    def fill(match: re.Match[str]) -> str:
        file = RECORDS / f"{match['name']}.json"
        record = read_result(file) if file.exists() else None
        if match["kind"] == "goals":
            content = goals(record)
        elif record is None:
            content = "No record yet."
        elif match["part"]:
            content = _PARTS[record["system"]](record, match["part"])
        elif match["kind"] == "summary":
            content = _SUMMARIES[record["system"]](record)
        else:
            content = _TABLES.get(record["system"], table)(record)
        return f"{match['open']}\n{content}\n\n{match['close']}"

    return MARKED.sub(fill, text)


_TABLES = {
    "bnn": BNN["bnn_benchmark"],
    "bnn_fashion": BNN_FASHION["bnn_fashion"],
    "bnn_memory": BNN_MEMORY["bnn_memory"],
    "decode": decoding,
    "dequant_matmul": products,
    "digits_bnn": DIGITS["digits_bnn"],
    "draw_matmul": DRAWN["drawn"],
    "fault_sampler": FAULTS["fault_sampler"],
    "faults": FAULTS["fault_benchmark"],
    "integer_dot": integers,
    "mbq_effect": EFFECT["effect"],
    "qwix_awq": beside_qwix,
    "sweep_plan": PLANS["sweep_plan"],
}

_PARTS = {"campaign_statistics": STATISTICS["campaign_statistics"]}

_SUMMARIES = {
    "bnn": BNN["bnn_summary"],
    "dm-bnn": DM_BNN["dm_bnn_summary"],
    "faults": FAULTS["fault_summary"],
    "mbq_effect": EFFECT["effect_summary"],
}


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
