"""Tables of the record of a Bayesian network on Fashion-MNIST."""

import pathlib
import runpy
from typing import Any

from jeff.cli.quantity import quantity

__all__ = ["bnn_fashion"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
Measures = dict[str, dict[str, Any]]
_SCORES = runpy.run_path(str(pathlib.Path(__file__).with_name("score_tables.py")))
_text = _SCORES["text"]
_NAMES = {
    "mean": "posterior, mean weights, one pass",
    "lrt": "posterior, independent voters, LRT",
    "naive": "posterior, independent voters, drawn weights",
    "tree": "posterior, tree",
    "planned_products": "posterior, tree planned for products",
    "planned_draws": "posterior, tree planned for draws",
    "planned_datapath": "posterior, tree planned for the datapath",
    "twin": "twin",
    "twin_scaled": "twin, with a temperature",
    "ensemble": "ensemble of twins",
    "ensemble_scaled": "ensemble, with a temperature",
}
_UNCERTAINTIES = {
    "mutual_information": "voters, mutual information",
    "entropy": "voters, entropy",
    "twin_entropy": "twin, entropy",
    "twin_scaled_entropy": "twin, with a temperature, entropy",
    "ensemble_mutual_information": "ensemble, mutual information",
    "ensemble_entropy": "ensemble, entropy",
    "ensemble_scaled_mutual_information": (
        "ensemble, with a temperature, mutual information"
    ),
    "ensemble_scaled_entropy": "ensemble, with a temperature, entropy",
}
_PRICES = ("products", "draws", "datapath")


def bnn_fashion(record: dict[str, Any]) -> str:
    """The record as tables.

    Args:
      record: Made by ``benchmarks/bnn_fashion.py``.

    Returns:
      Markdown.

    Examples:
      >>> measure = {"name": "nll_of_voters.30", "value": 0.3, "unit": "nats"}
      >>> record = {"device": "cpu x 1", "versions": {}, "notes": [], "measures": [
      ...     measure | {"low": 0.29, "high": 0.31}], "preset": "default"}
      >>> print(bnn_fashion(record).splitlines()[2])
      | 30 | 0.3000 nats [0.2900, 0.3100] |
    """
    found = {m["name"]: m for m in record["measures"]}
    parts = [
        _SCORES["scores"](found, _NAMES),
        _differences(found),
        _detection(found),
        _listed(found, "nll_of_voters.", "voters, LRT", "negative log-likelihood"),
        _trees(found),
        _SCORES["choice"](found),
    ]
    lines = [line for part in parts if part for line in (*part, "")]
    made = _LINES["made"]("python benchmarks/bnn_fashion.py", record)
    return "\n".join([*lines, *_LINES["noted"](record), "", made])


def _differences(found: Measures) -> list[str]:
    prefix = "accuracy_difference."
    pairs = [n.removeprefix(prefix) for n in found if n.startswith(prefix)]
    if not pairs:
        return []
    lines = [
        "| difference | accuracy | negative log-likelihood |",
        "| --- | --- | --- |",
    ]
    for pair in pairs:
        ours, _, theirs = pair.partition(".")
        kinds = (f"{kind}_difference.{pair}" for kind in ("accuracy", "nll"))
        texts = " | ".join(_text(found, name) for name in kinds)
        lines.append(f"| {_NAMES[ours]} − {_NAMES[theirs]} | {texts} |")
    return lines


def _detection(found: Measures) -> list[str]:
    rows = [
        f"| {title} | {_text(found, f'auroc.mnist.{name}')} |"
        for name, title in _UNCERTAINTIES.items()
        if f"auroc.mnist.{name}" in found
    ]
    head = ["| digits told from clothes by | AUROC |", "| --- | --- |"]
    return [*head, *rows] if rows else []


def _listed(found: Measures, prefix: str, first: str, second: str) -> list[str]:
    names = [n for n in found if n.startswith(prefix)]
    rows = [f"| {n.removeprefix(prefix)} | {_text(found, n)} |" for n in names]
    return [f"| {first} | {second} |", "| ---: | --- |", *rows] if rows else []


def _trees(found: Measures) -> list[str]:
    case = "fashion.{}".format
    prices = [p for p in _PRICES if f"planned_cost.{case(p)}" in found]
    if not prices:
        return []
    lines = [
        "| cost of a planned tree's effective voter over an independent one's | goal "
        "| planned | found |",
        "| --- | --- | ---: | --- |",
    ]
    for price in prices:
        names = (f"{kind}.{case(price)}" for kind in ("planned_cost", "found_cost"))
        planned, measured = (_text(found, name) for name in names)
        measured = measured or "independent voters are the plan"
        lines.append(f"| {price} | at most 0.75 | {planned} | {measured} |")
    shares = [n for n in found if n.startswith("variance_share.fashion.")]
    said = ", ".join(quantity(found[n]["value"], "fraction") for n in shares)
    return [*lines, "", f"Shares of the levels in the variance of a voter: {said}."]
