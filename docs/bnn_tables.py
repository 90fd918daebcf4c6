"""Tables of the record of Bayesian networks: goals, ratios, times, memory, draws."""

import pathlib
import re
import runpy
from typing import Any

from jeff.cli.quantity import estimate, quantity

__all__ = ["bnn_benchmark", "bnn_summary"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
_SENTENCES = runpy.run_path(str(pathlib.Path(__file__).with_name("bnn_sentences.py")))[
    "bnn_sentences"
]

Measures = dict[str, dict[str, Any]]
_CASE = re.compile(r"(?P<name>\w+?)_b(?P<rows>\d+)_t(?P<voters>\d+)")
_CONTENDERS = {
    "naive": "naive",
    "naive16": "naive, 16 bits",
    "hybrid": "hybrid",
    "tree": "tree",
    "tree_shared": "tree, shared",
    "flipout": "flipout",
    "lrt": "LRT",
    "lrt16": "LRT, 16 bits",
    "bayesian_torch": "bayesian-torch",
    "bayesian_torch_flipout": "its flipout",
    "blitz": "blitz",
    "torch_lrt": "LRT in torch",
}
_RATIOS = {
    "bayesian_torch.naive": "bayesian-torch / naive",
    "bayesian_torch.naive16": "bayesian-torch / naive, 16 bits",
    "bayesian_torch.tree": "bayesian-torch / tree",
    "bayesian_torch.lrt": "bayesian-torch / LRT",
    "bayesian_torch.lrt16": "bayesian-torch / LRT, 16 bits",
    "bayesian_torch_flipout.flipout": "its flipout / flipout",
    "blitz.naive": "blitz / naive",
    "blitz.lrt": "blitz / LRT",
    "torch_lrt.lrt": "LRT in torch / LRT",
    "torch_lrt.lrt16": "LRT in torch / LRT, 16 bits",
}
_KINDS = {
    "ratio": "times faster",
    "seconds": "time",
    "peak_bytes": "peak memory",
    "compiled_bytes": "memory as compiled",
}
_GENERATORS = {
    "normal32": "`jax.random.normal`, float32",
    "normal32_again": "the same, other keys",
    "jax_bfloat16": "`jax.random.normal`, bfloat16",
    "normal16": "`dm_bnn.normal16`",
    "normal8": "`dm_bnn.normal8`",
    "clt2": "`hwsim.rng.clt`, 2 words",
    "clt": "`hwsim.rng.clt`, 12 words",
    "rlf": "`hwsim.rng.rlf`",
    "wallace": "`hwsim.rng.wallace`",
}


def bnn_benchmark(record: dict[str, Any]) -> str:
    """The record as tables.

    Args:
      record: Made by ``benchmarks/bnn.py``.

    Returns:
      Markdown.

    Examples:
      >>> measure = {"name": "seconds.lrt_b1_t100", "value": 1e-3, "unit": "s"}
      >>> record = {"device": "cpu, 1 core", "versions": {}, "notes": [], "measures": [
      ...     measure | {"low": 0.9e-3, "high": 1.2e-3, "trials": 6}],
      ...     "preset": "default"}
      >>> print(bnn_benchmark(record).splitlines()[2])
      | LRT, 1 row, 100 voters | at most 2 ms | 1.000 ms [0.900, 1.200] |
    """
    found = {m["name"]: m for m in record["measures"]}
    parts = [
        _goals(found),
        _SENTENCES(found),
        _grid(found, "ratio", _RATIOS),
        _grid(found, "seconds", _CONTENDERS),
        _grid(found, "peak_bytes", _CONTENDERS),
        _grid(found, "compiled_bytes", _CONTENDERS),
        _compiling(found),
        _agreement(found),
        _draws(found),
        _scores(found),
        _trees(found),
    ]
    lines = [line for part in parts if part for line in (*part, "")]
    lines += _LINES["noted"](record)
    return "\n".join([*lines, "", _made(record)])


def bnn_summary(record: dict[str, Any]) -> str:
    """What the project set itself as goals, and where jeff is faster and slower.

    Args:
      record: As `bnn_benchmark`.

    Returns:
      Markdown.
    """
    found = {m["name"]: m for m in record["measures"]}
    parts = [_goals(found), _SENTENCES(found)[:2], [_made(record)]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _made(record: dict[str, Any]) -> str:
    return _LINES["made"]("python benchmarks/bnn.py", record)


def _goals(found: Measures) -> list[str]:
    ratio = "ratio.bayesian_torch.lrt_b1_t100"
    rows = [
        ("LRT, 1 row, 100 voters", "at most 2 ms", "seconds.lrt_b1_t100"),
        ("time of bayesian-torch over it", "at least 250", ratio),
        ("the same, LRT with numbers of 16 bits", "", ratio.replace("lrt", "lrt16")),
    ]
    for price in ("products", "draws", "datapath"):
        what = f"cost of a planned tree's effective voter, digits, {price}"
        rows.append((what, "at most 0.75", f"found_cost.digits.{price}"))
    lines = ["| what | goal | measured |", "| --- | --- | --- |"]
    for what, goal, name in rows:
        measured = _middle(found[name]) if name in found else "not measured"
        lines.append(f"| {what} | {goal} | {measured} |")
    return lines


def _grid(found: Measures, kind: str, columns: dict[str, str]) -> list[str]:
    """A line per number of rows and voters, a column per contender or ratio."""
    cells: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for name, m in found.items():
        of_kind, _, rest = name.partition(".")
        match = _CASE.fullmatch(rest.rpartition(".")[2])
        if of_kind == kind and match:
            contender = rest.removesuffix(match[0]) + match["name"]
            size = int(match["voters"]), int(match["rows"])
            cells.setdefault(size, {})[contender] = m
    used = [c for c in columns if any(c in of_cell for of_cell in cells.values())]
    if not used:
        return []
    titles = " | ".join(columns[c] for c in used)
    timed = kind in ("ratio", "seconds")
    lines = [
        f"| rows x voters, {_KINDS[kind]} |{' rounds |' * timed} {titles} |",
        "| --- |" + " ---: |" * (len(used) + timed),
    ]
    for (voters, rows), of_cell in sorted(cells.items()):
        texts = [
            _short(of_cell[c], kind == "ratio") if c in of_cell else "" for c in used
        ]
        if timed:
            rounds = {m["trials"] for m in of_cell.values()}
            texts.insert(0, ", ".join(map(str, sorted(rounds))))
        lines.append(f"| {rows} x {voters:,} | {' | '.join(texts)} |")
    return lines


def _compiling(found: Measures) -> list[str]:
    """How long each contender of jeff is compiled, over all cells."""
    rows = []
    for contender, title in _CONTENDERS.items():
        prefix = f"compile_seconds.{contender}_b"
        seconds = [m["value"] for n, m in found.items() if n.startswith(prefix)]
        if seconds:
            ends = " to ".join(f"{s:.2f} s" for s in (min(seconds), max(seconds)))
            rows.append(f"| {title} | {ends} |")
    head = ["| contender | tracing and compiling, over all cells |", "| --- | ---: |"]
    return [*head, *rows] if rows else []


def _agreement(found: Measures) -> list[str]:
    """How far outputs for the same noise are apart."""
    prefix = "output_difference."
    rows = [
        f"| {_CONTENDERS[n.removeprefix(prefix)]} | {m['value']:.1e} |"
        for n, m in found.items()
        if n.startswith(prefix)
    ]
    head = [
        "| for the same noise | largest difference from jeff's outputs, relative to "
        "the largest |",
        "| --- | ---: |",
    ]
    return [*head, *rows] if rows else []


def _draws(found: Measures) -> list[str]:
    prefix = "draws_per_second.rows."
    names = [n.removeprefix(prefix) for n in found if n.startswith(prefix)]
    if not names:
        return []
    lines = [
        "| generator | millions a second, 784 under a key | 131,072 under a key "
        "| hybrid voters |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in names:
        rates = (found.get(f"draws_per_second.{k}.{name}") for k in ("rows", "long"))
        texts = ["" if m is None else f"{m['value'] / 1e6:.3g}" for m in rates]
        voters = found.get(f"hybrid_seconds.{name}")
        texts.append("" if voters is None else _short(voters, False))
        lines.append(f"| {_GENERATORS.get(name, name)} | {' | '.join(texts)} |")
    return lines


def _scores(found: Measures) -> list[str]:
    """Accuracy and calibration by generator, and differences from JAX's."""
    kinds = ("accuracy", "ece", "nll")
    names = [n for n in _GENERATORS if f"accuracy.{n}" in found]
    if not names:
        return []
    titles = ("accuracy", "ECE", "negative log-likelihood")
    columns = " | ".join(f"{t} | difference" for t in titles)
    lines = [f"| generator, digits | {columns} |", "| --- |" + " --- |" * 6]
    for name in names:
        texts = []
        for kind in kinds:
            m, d = (
                found[f"{kind}.{name}"],
                found.get(f"{kind}_difference.{name}.normal32"),
            )
            texts += [_middle(m), "" if d is None else _middle(d)]
        lines.append(f"| {_GENERATORS[name]} | {' | '.join(texts)} |")
    return lines


def _trees(found: Measures) -> list[str]:
    prefix = "planned_cost."
    cases = [n.removeprefix(prefix) for n in found if n.startswith(prefix)]
    if not cases:
        return []
    lines = [
        "| network | price | planned | found | found, in time |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for case in cases:
        network, _, price = case.partition(".")
        names = (f"{kind}.{case}" for kind in ("found_cost", "found_seconds"))
        texts = (_middle(found[n]) if n in found else "" for n in names)
        planned = quantity(found[prefix + case]["value"])
        lines.append(f"| {network} | {price} | {planned} | {' | '.join(texts)} |")
    return lines


def _middle(m: dict[str, Any]) -> str:
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
    return " ".join(part for part in (number, suffix, ends) if part)


def _short(m: dict[str, Any], ratio: bool) -> str:
    value = m["value"]
    if not ratio:
        return quantity(float(f"{value:.3g}"), m["unit"])
    ends = f" [{m['low']:.3g}, {m['high']:.3g}]"
    return f"{value:.3g}{ends}"
