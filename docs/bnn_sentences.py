"""What the record of Bayesian networks shows, in sentences: goals, gains and losses."""

import re
from typing import Any

from jeff.cli.quantity import estimate

__all__ = ["bnn_sentences"]

Measures = dict[str, dict[str, Any]]
_SAME = {
    "bayesian_torch.naive": "*naive* beside bayesian-torch",
    "bayesian_torch_flipout.flipout": "*flipout* beside bayesian-torch's",
    "blitz.naive": "*naive* beside blitz",
    "torch_lrt.lrt": "LRT beside ten lines of torch",
}
"""The same algorithm on both sides."""
_FEWER_BITS = {
    "bayesian_torch.naive16": "*naive* beside bayesian-torch",
    "torch_lrt.lrt16": "LRT beside ten lines of torch",
}
_PRICES = ("products", "draws", "datapath")
_CASE = re.compile(r"_b(?P<rows>\d+)_t(?P<voters>\d+)")


def bnn_sentences(found: Measures) -> list[str]:
    """Which goals are reached, and where jeff is faster and slower.

    Args:
      found: Measures of ``benchmarks/bnn.py`` by name.

    Returns:
      Items of a Markdown list, of what was measured.

    Examples:
      >>> ratio = {"value": 0.5, "low": 0.4, "high": 0.6, "unit": ""}
      >>> print(bnn_sentences({"ratio.blitz.naive_b1_t10": ratio})[0])
      - The same algorithm on both sides (times as fast, by rows x voters): *naive*
      beside blitz slower in 1 of 1 cells, 0.5 (1 x 10).
    """
    parts = [
        _goals(found),
        _beside(found, _SAME, "The same algorithm on both sides"),
        _beside(found, _FEWER_BITS, "The same with numbers of 16 random bits"),
        _decomposed(found),
    ]
    return [f"- {part}" for part in parts if part]


def _goals(found: Measures) -> str:
    """Each goal with a verdict: the whole interval meets it, or misses it."""
    case = "lrt_b1_t100"
    said = []
    if m := found.get(f"seconds.{case}"):
        verdict = _verdict(m, most=2e-3)
        said.append(
            f"LRT takes {_text(m)} for 100 voters of one row (at most 2 ms: {verdict})"
        )
    if m := found.get(f"ratio.bayesian_torch.{case}"):
        verdict = _verdict(m, least=250)
        said.append(
            f"bayesian-torch takes {_text(m)} times as long (at least 250: {verdict})"
        )
    trees = []
    for price in _PRICES:
        if m := found.get(f"found_cost.digits.{price}"):
            trees.append(f"{price} {_text(m)} ({_verdict(m, most=0.75)})")
    if trees:
        said.append(
            "the cost of an effective voter of a planned tree over an independent "
            f"one's (at most 0.75) is, by {', by '.join(trees)}"
        )
    return f"Goals: {'; '.join(said)}." if said else ""


def _verdict(
    m: dict[str, Any], least: float | None = None, most: float | None = None
) -> str:
    """Whether a goal is reached, by both ends of the interval."""
    low, high = m["low"], m["high"]
    if least is not None:
        low, high, most = -high, -low, -least
    if high <= most:
        return "reached"
    return "**missed**" if low > most else "neither reached nor missed"


def _beside(found: Measures, pairs: dict[str, str], title: str) -> str:
    """Of each pair, in how many cells jeff is faster or slower, and the extremes."""
    said = []
    for pair, words in pairs.items():
        cells = _cells(found, f"ratio.{pair}")
        if not cells:
            continue
        counts = {
            "faster": sum(m["low"] > 1 for m in cells.values()),
            "slower": sum(m["high"] < 1 for m in cells.values()),
        }
        counts["not told apart"] = len(cells) - sum(counts.values())
        parts = [f"{how} in {n}" for how, n in counts.items() if n]
        counted = f"{' and '.join(parts)} of {len(cells)} cells"
        ordered = sorted(cells, key=lambda cell: cells[cell]["value"])
        ends = dict.fromkeys((ordered[0], ordered[-1]))
        extremes = " to ".join(f"{cells[c]['value']:.3g} ({c})" for c in ends)
        said.append(f"{words} {counted}, {extremes}")
    if not said:
        return ""
    return f"{title} (times as fast, by rows x voters): {'; '.join(said)}."


def _decomposed(found: Measures) -> str:
    """Whether decomposing the first layer pays in time."""
    hybrid, naive = (_cells(found, f"seconds.{n}") for n in ("hybrid", "naive"))
    ratios = {
        cell: hybrid[cell]["value"] / naive[cell]["value"]
        for cell in hybrid
        if cell in naive
    }
    if not ratios:
        return ""
    longer = sum(ratio > 1 for ratio in ratios.values())
    ordered = sorted(ratios, key=ratios.__getitem__)
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    extremes = " to ".join(f"{ratios[c]:.3g} ({c})" for c in ends)
    return (
        f"*hybrid* takes longer than *naive* in {longer} of {len(ratios)} cells: its "
        f"time over naive's, of medians, is {extremes}."
    )


def _cells(found: Measures, prefix: str) -> dict[str, dict[str, Any]]:
    """Measures of all numbers of rows and voters, by ``ROWS x VOTERS``."""
    cells = {}
    for name, m in found.items():
        match = _CASE.fullmatch(name.removeprefix(prefix))
        if match and name.startswith(prefix):
            cells[f"{match['rows']} x {int(match['voters']):,}"] = m
    return cells


def _text(m: dict[str, Any]) -> str:
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
    return " ".join(part for part in (number, suffix, ends) if part)
