"""Parts of tables of networks that were trained: scores, detection, choice of a weight.

The generators of single records load this file by its path (`runpy`), as
docs/make_tables.py loads them: docs is no package.
"""

from collections.abc import Mapping
from typing import Any

from jeff.cli.quantity import estimate

__all__ = ["choice", "detection", "scores", "text"]

Measures = Mapping[str, Mapping[str, Any]]


def scores(found: Measures, names: Mapping[str, str]) -> list[str]:
    """Accuracy, log-likelihood and calibration, a line per prediction.

    Args:
      found: Measures by name; ``SCORE.PREDICTION`` are taken.
      names: What to call the predictions.

    Returns:
      Lines of Markdown, none if there is no such measure.

    Examples:
      >>> ends = {"low": None, "high": None}
      >>> found = {"accuracy.twin": {"value": 0.9, "unit": "fraction"} | ends}
      >>> print(scores(found, {"twin": "the twin"})[-1])
      | the twin | 90 % |  |  |  |  |
    """
    taken = [n for n in names if f"accuracy.{n}" in found]
    if not taken:
        return []
    lines = [
        "| prediction | accuracy | negative log-likelihood | ECE | ECE if calibrated "
        "| Brier score |",
        "| --- | --- | --- | ---: | --- | ---: |",
    ]
    for name in taken:
        kinds = ("accuracy", "nll", "ece", "ece_if_calibrated", "brier")
        cells = " | ".join(text(found, f"{kind}.{name}") for kind in kinds)
        lines.append(f"| {names[name]} | {cells} |")
    return lines


def detection(
    found: Measures, kinds: Mapping[str, str], names: Mapping[str, str]
) -> list[str]:
    """How well uncertainties tell other inputs, a line per uncertainty.

    Args:
      found: Measures by name; ``auroc.KIND.UNCERTAINTY`` are taken.
      kinds: What to call the other inputs, a column each.
      names: What to call the uncertainties.

    Returns:
      Lines of Markdown, none if there is no such measure.

    Examples:
      >>> area = {"value": 0.75, "unit": "fraction", "low": None, "high": None}
      >>> found = {"auroc.noise.entropy": area}
      >>> for line in detection(found, {"noise": "AUROC"}, {"entropy": "entropy"}):
      ...     print(line)
      | told by | AUROC |
      | --- | --- |
      | entropy | 75 % |
    """
    lines = []
    for name, title in names.items():
        cells = [text(found, f"auroc.{kind}.{name}") for kind in kinds]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    head = [f"| told by | {' | '.join(kinds.values())} |"]
    return [*head, "| --- |" + " --- |" * len(kinds), *lines] if lines else []


def choice(found: Measures) -> list[str]:
    """What the weights of the divergence gave on held-out data.

    Args:
      found: Measures by name; ``validation_nll.WEIGHT``, ``validation_ece.WEIGHT`` and
        ``kl_weight`` are taken.

    Returns:
      Lines of Markdown, none if there is no such measure.

    Examples:
      >>> ends = {"low": None, "high": None}
      >>> loss = {"value": 0.25, "unit": "nats"} | ends
      >>> found = {"kl_weight": {"value": 0.1}, "validation_nll.0.1": loss}
      >>> print(choice(found)[-1])
      | 0.1 (chosen) | 0.25 nats |  |
    """
    prefix = "validation_nll."
    weights = [n.removeprefix(prefix) for n in found if n.startswith(prefix)]
    if not weights or "kl_weight" not in found:
        return []
    lines = [
        "| weight of the divergence | negative log-likelihood, held out "
        "| ECE, held out |",
        "| ---: | --- | ---: |",
    ]
    chosen = f"{found['kl_weight']['value']:g}"
    for weight in weights:
        kinds = (f"validation_{kind}.{weight}" for kind in ("nll", "ece"))
        cells = " | ".join(text(found, name) for name in kinds)
        mark = " (chosen)" if weight == chosen else ""
        lines.append(f"| {weight}{mark} | {cells} |")
    return lines


def text(found: Measures, name: str) -> str:
    """A measure with its interval.

    Args:
      found: Measures by name.
      name: One of them.

    Returns:
      The text of a cell, nothing if there is no such measure.

    Examples:
      >>> ends = {"low": 0.9, "high": 0.94}
      >>> text({"a": {"value": 0.92, "unit": "fraction"} | ends}, "a")
      '92.00 % [90.00, 94.00]'
    """
    if name not in found:
        return ""
    m = found[name]
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], m["unit"])
    return " ".join(part for part in (number, suffix, ends) if part)
