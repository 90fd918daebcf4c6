"""Tables and sentences of the record of campaign statistics, a part at a time."""

from collections.abc import Callable
from typing import Any

from jeff.cli.quantity import quantity
from jeff.sweep import sample_size

__all__ = ["campaign_statistics"]

Measures = dict[str, dict[str, Any]]
Settings = dict[str, Any]
_LEVEL = 0.05  # of campaigns, that may miss
_FIXED = sample_size(0.01)
_DEVICES = {
    "normal": "accuracy 0.8, normal, spread 0.03",
    "one_in_ten": "0.9, one in ten 0.45",
    "one_in_a_hundred": "0.9, one in a hundred 0.45",
    "rare_among_different": "0.9, spread 0.003, one in a hundred 0.1",
}
_METHODS = ("empirical_bernstein", "student_t")
_LOSSES = {"half": "half", "skewed": "a part $u^3$"}
_IMAGES = {
    "both_vary": "30 devices, 40 images, both of two sorts: 60 ± 10 ± 25 %",
    "few_devices_fail": "32 devices, one in 30 loses half its answers; 100 images, "
    "one in ten wrong",
    "few_images_wrong": "20 devices that each lose 2 %; 40 images, one in 30 wrong on "
    "all",
}
_CAMPAIGNS = {
    "plain": "plain sample",
    "strata_proportional": "strata in proportion to their sizes",
    "strata_pilot": "strata after a pilot",
    "strata_known": "strata, rates known (at least 0.02)",
    "importance_pilot": "importance over bits after a pilot",
    "importance_known": "importance over bits, rates known",
}


def campaign_statistics(record: dict[str, Any], part: str) -> str:
    """A part of the record as Markdown.

    Args:
      record: Made by ``benchmarks/campaign_statistics.py``.
      part: ``"looks"``, ``"injections"``, ``"devices"``, ``"means"``, ``"images"``,
        ``"strata"``, ``"net"``, or ``"made"`` for how all of them were made.

    Returns:
      Markdown.

    Raises:
      KeyError: If there is no such part, or the record lacks a number of it.

    Examples:
      >>> def measure(name, value):
      ...     return {"name": name, "value": value, "low": None, "high": None}
      >>> record = {"settings": {"looked_at": [0.5]}, "measures": [
      ...     measure("looks_held.margin.0.5", 0.9712),
      ...     measure("looks_held.wilson.0.5", 0.711)]}
      >>> print(campaign_statistics(record, "looks").splitlines()[2])
      | `Margin` | 97.12 % |
    """
    if part == "made":
        return "\n".join(_made(record))
    found = {m["name"]: m for m in record["measures"]}
    return "\n".join(_PARTS[part](found, record["settings"]))


def _looks(found: Measures, settings: Settings) -> list[str]:
    rates = [f"{rate:g}" for rate in settings["looked_at"]]
    rows = {"margin": "`Margin`", "wilson": "Wilson's at 95 %, looked at again"}
    return [
        *_head(["true rate", *rates], "-" + ":" * len(rates)),
        *(
            _row([label, *(_share(found[f"looks_held.{name}.{r}"]) for r in rates)])
            for name, label in rows.items()
        ),
    ]


def _injections(found: Measures, settings: Settings) -> list[str]:
    units = settings["units"]
    cells = ["true rate"]
    for unit in units:
        cells += [f"looks every {unit}", "over the fixed number", "holds the rate"]
    lines = _head(cells, ":" * len(cells))
    for rate in (f"{r:g}" for r in settings["stopped_at"]):
        cells = [rate]
        for unit in units:
            mean = found[f"stop_injections.{unit}.{rate}"]["value"]
            held = _share(found[f"stop_held.{unit}.{rate}"])
            cells += [f"{mean:,.0f}", f"{mean / _FIXED:.2f}", held]
        lines.append(_row(cells))
    return lines


def _devices(found: Measures, settings: Settings) -> list[str]:
    lines = _head(["devices", *(f"`{m}`" for m in _METHODS)], "---")
    for kind, label in _DEVICES.items():
        cells = [label]
        for method in _METHODS:
            missed = found[f"stop_missed.{method}.{kind}"]
            text = f"misses {_share(missed)}"
            if missed["low"] > _LEVEL:
                text = f"**{text}**"
            mean = found[f"stop_devices.{method}.{kind}"]["value"]
            cells.append(f"{text}, {mean:,.0f} devices")
        lines.append(_row(cells))
    return lines


def _means(found: Measures, settings: Settings) -> list[str]:
    shares = [f"{s:g}" for s in settings["failing"]]
    head = [f"{quantity(float(s), 'fraction')} fail" for s in shares]
    lines = _head(["loses", "devices", *head], "-:" + "-" * len(shares))
    for loss, label in _LOSSES.items():
        for devices in settings["devices"]:
            cells = [label, str(devices)]
            for s in shares:
                pair = (
                    found[f"means_missed.{interval}.{loss}.{devices}.{s}"]["value"]
                    for interval in ("mean_of_devices", "student_t")
                )
                cells.append(
                    " / ".join(quantity(round(x, 3), "fraction") for x in pair)
                )
            lines.append(_row(cells))
    return [
        *lines,
        "",
        f"Where it is worst, `mean_of_devices` misses in "
        f"{_worst(found, 'mean_of_devices')}; Student's interval in "
        f"{_worst(found, 'student_t')}.",
    ]


def _worst(found: Measures, interval: str) -> str:
    """Which case of devices an interval misses most often."""
    prefix = f"means_missed.{interval}."
    case = max(
        (n.removeprefix(prefix) for n in found if n.startswith(prefix)),
        key=lambda case: found[prefix + case]["value"],
    )
    loss, devices, share = case.split(".", 2)
    return (
        f"{_share(found[prefix + case])} of campaigns of {devices} devices of which "
        f"{quantity(float(share), 'fraction')} lose {_LOSSES[loss]}"
    )


def _images(found: Measures, settings: Settings) -> list[str]:
    kinds = {
        "devices": "Student's over devices",
        "variance": "analysis of variance",
        "any_images": "`accuracy_any_images`",
    }
    lines = _head(["simulated campaigns", *kinds.values()], "----")
    for case, label in _IMAGES.items():
        cells = (_share(found[f"images_held.{kind}.{case}"]) for kind in kinds)
        lines.append(_row([label, *cells]))
    return lines


def _strata(found: Measures, settings: Settings) -> list[str]:
    lines = _head(["injections", "`stratified_estimate`", "textbook's"], ":--")
    for total in settings["totals"]:
        cells = (
            _share(found[f"strata_held.{kind}.{total}"])
            for kind in ("wilson", "textbook")
        )
        lines.append(_row([f"{total:,}", *cells]))
    return lines


def _net(found: Measures, settings: Settings) -> list[str]:
    cells = ["campaign"]
    for budget, pilot in settings["net"]:
        cells += [
            f"injections ({budget:,}, pilot of {pilot})",
            "variance over a plain sample's",
            "holds the rate",
        ]
    lines = _head(cells, "-" + ":--" * len(settings["net"]))
    for name, label in _CAMPAIGNS.items():
        cells = [label]
        for budget, _ in settings["net"]:
            case = f"{name}.{budget}"
            total, held = (found.get(f"net_{n}.{case}") for n in ("injections", "held"))
            cells += [
                "" if total is None else quantity(total["value"]),
                _ratio(found[f"net_variance.{case}"]),
                "" if held is None else _share(held),
            ]
        lines.append(_row(cells))
    return lines


def _made(record: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    return [
        f"Made by `python benchmarks/campaign_statistics.py` on {record['device']} "
        f"({versions}); "
        f"{record['settings']['campaigns']:,} simulated campaigns of every case.",
        "",
        *(f"- {note}".replace("|", "\\|") for note in record["notes"]),
    ]


def _share(m: dict[str, Any]) -> str:
    """A share and its interval."""
    if m["low"] is not None:
        low, value, high = (f"{m[n]:.2%}"[:-1] for n in ("low", "value", "high"))
        return f"{value} % [{low}, {high}]"
    return "> 99.99 %" if 0.9999 < m["value"] < 1 else f"{m['value']:.2%}"[:-1] + " %"


def _ratio(m: dict[str, Any]) -> str:
    """A ratio and its interval."""
    if m["low"] is None:
        return f"{m['value']:.3f}"
    return f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"


def _head(cells: list[str], sides: str) -> list[str]:
    """The first two lines of a table; columns of ``:`` are flush right."""
    return [_row(cells), _row(["---:" if side == ":" else "---" for side in sides])]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


_PARTS: dict[str, Callable[[Measures, Settings], list[str]]] = {
    "looks": _looks,
    "injections": _injections,
    "devices": _devices,
    "means": _means,
    "images": _images,
    "strata": _strata,
    "net": _net,
}
