"""Tables of the effect study's record: for its page, and a short one for the README."""

from collections.abc import Iterator
from typing import Any

from jeff.cli.quantity import estimate, quantity

__all__ = ["effect", "effect_summary"]

Measures = dict[str, dict[str, Any]]
_SHOWN = {-1: "loses less", 0: "no difference shown", 1: "loses more"}
_SUMMARY = ("rtn", "awq", "gptq", "mbq", "mbq_gptq")


def effect(record: dict[str, Any]) -> str:
    """Losses, comparisons and ablations of the record, a table each.

    Args:
      record: Made by ``benchmarks/mbq_effect.py``.

    Returns:
      Markdown.

    Examples:
      >>> def measure(name, value, low=None, high=None):
      ...     return {"name": name, "value": value, "low": low, "high": high}
      >>> record = {"device": "cpu x 1", "versions": {}, "notes": [], "measures": [
      ...     measure("tiny.full.loss", 0.125), measure("tiny.full.accuracy", 0.5),
      ...     measure("tiny.w3.loss_increase.mbq", 0.25, 0.2, 0.3),
      ...     measure("tiny.w3.accuracy.mbq", 0.4, 0.3, 0.5)]}
      >>> print(effect(record).splitlines()[3])
      | tiny | w3 | `mbq` | 0.250 [0.200, 0.300] | 40.0 % [30.0, 50.0] |  |
    """
    found = {m["name"]: m for m in record["measures"]}
    lines = [
        "| model | setting | method | loss increase (nats) | accuracy | perplexity |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for model in _models(found):
        full = [model, "", "full precision"]
        full.append(f"0, of {quantity(found[f'{model}.full.loss']['value'])}")
        full.append(_cell(found[f"{model}.full.accuracy"], "fraction"))
        full.append(_cell(found.get(f"{model}.full.perplexity")))
        lines.append(_row(full))
        for setting, method in _pairs(found, f"{model}.", "loss_increase"):
            at = f"{model}.{setting}"
            cells = [model, setting, f"`{method}`"]
            cells.append(_cell(found[f"{at}.loss_increase.{method}"]))
            cells.append(_cell(found[f"{at}.accuracy.{method}"], "fraction"))
            cells.append(_cell(found.get(f"{at}.perplexity.{method}")))
            lines.append(_row(cells))
    lines += ["", *_comparisons(found), "", *_ablations(found), ""]
    lines += [f"- {note}".replace("|", "\\|") for note in record["notes"]]
    return "\n".join([*lines, "", _made(record)])


def effect_summary(record: dict[str, Any]) -> str:
    """The loss increases of the main methods, a line per setting, and what was shown.

    Args:
      record: As `effect`.

    Returns:
      Markdown.
    """
    found = {m["name"]: m for m in record["measures"]}
    head = ("model", "setting", *(f"`{name}`" for name in _SUMMARY))
    lines = [_row(head), _row(["---", "---", *["---:"] * len(_SUMMARY)])]
    for model in _models(found):
        settings = dict.fromkeys(s for s, _ in _pairs(found, f"{model}.", "accuracy"))
        for setting in settings:
            at = f"{model}.{setting}.loss_increase"
            cells = [_cell(found.get(f"{at}.{name}")) for name in _SUMMARY]
            lines.append(_row([model, setting, *cells]))
    lines.append("")
    for name, m in found.items():
        if name.endswith(".shown") and m["value"]:
            model, setting, pair, _ = name.split(".")
            a, b = pair.split("_minus_")
            at = f"{model}.{setting}.{pair}"
            number, *seeds = _cell(found[at]).split(" ", 1)
            _, *images = _cell(found[f"{at}.images"]).split(" ", 1)
            lines.append(
                f"- {model}, {setting}: `{a}` {_SHOWN[int(m['value'])]} than `{b}`, "
                f"{number} nats, {seeds[0]} over seeds, {images[0]} over images."
            )
    count = sum(name.endswith(".shown") and not m["value"] for name, m in found.items())
    lines.append(f"- The other {count} comparisons of the protocol show no difference.")
    return "\n".join([*lines, "", _made(record)])


def _comparisons(found: Measures) -> list[str]:
    lines = [
        "| model | setting | difference | nats, over seeds | over images | p (Holm) "
        "| p (Wilcoxon) | verdict |",
        "| --- | --- | --- | ---: | --- | ---: | ---: | --- |",
    ]
    for name, m in found.items():
        at, _, last = name.rpartition(".")
        if last != "shown":
            continue
        model, setting, pair = at.split(".")
        a, b = pair.split("_minus_")
        images = found[f"{at}.images"]
        cells = [model, setting, f"`{a}` minus `{b}`", _cell(found[at])]
        cells.append(_cell(images))
        cells += [f"{found[f'{at}.p_{p}']['value']:.2g}" for p in ("holm", "wilcoxon")]
        lines.append(_row([*cells, _SHOWN[int(m["value"])]]))
    return lines


def _ablations(found: Measures) -> list[str]:
    lines = [
        "| model | setting | variant | nats more than `mbq` |",
        "| --- | --- | --- | ---: |",
    ]
    for name, m in found.items():
        model, setting, *rest = name.split(".")
        if len(rest) != 1 or not rest[0].endswith("_minus_mbq"):
            continue
        if f"{name}.shown" in found:
            continue
        variant = rest[0].removesuffix("_minus_mbq")
        lines.append(_row([model, setting, f"`{variant}`", _cell(m)]))
    return lines


def _models(found: Measures) -> list[str]:
    return [n.partition(".")[0] for n in found if n.endswith(".full.loss")]


def _pairs(found: Measures, prefix: str, kind: str) -> Iterator[tuple[str, str]]:
    """Setting and method of the measures of a kind."""
    for name in found:
        parts = name.split(".")
        if name.startswith(prefix) and len(parts) == 4 and parts[2] == kind:
            yield parts[1], parts[3]


def _cell(m: dict[str, Any] | None, unit: str = "") -> str:
    if m is None:
        return ""
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], unit)
    return " ".join(part for part in (number, suffix, ends) if part)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _made(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    return (
        f"Made by `python benchmarks/mbq_effect.py` on {record['device']} "
        f"({versions}); intervals 95 %."
    )
