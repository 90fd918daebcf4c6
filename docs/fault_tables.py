"""Tables of the records of faults: ratios, speeds, injections, accuracy; samplers."""

import pathlib
import runpy
from typing import Any

from jeff.cli.quantity import estimate, quantity

__all__ = ["fault_benchmark", "fault_sampler", "fault_summary"]

_LINES = runpy.run_path(str(pathlib.Path(__file__).with_name("record_lines.py")))
Measures = dict[str, dict[str, Any]]
_SAME = "the same"
_RATIOS = {  # measure: what jeff does, what the peer does, goal
    "pytorchfi.one_image": ("one image, weight bits at 1e-3", "random weight", "6"),
    "pytorchfi.one_image_single": ("one image, one weight bit", "random weight", "6"),
    "pytorchfi.one_image_norm": (
        "one image, weight bits at 1e-3",
        "random weight, normalisations not folded",
        "6",
    ),
    "pytorchfi.features": ("one feature bit per image", "the same, or a value", "3"),
    "mrfi.features": ("a bit of 1e-3 of all features", _SAME, "3"),
    "pytorchfi.prefix_reuse": ("a weight of the last block", _SAME, "10"),
    "pytorchfi.prefix_reuse_layer": ("a weight of the last convolution", _SAME, ""),
    "pytorchfi.prefix_reuse_stage": ("a weight of the last three blocks", _SAME, ""),
    "pytorchfi.to_margin": (
        "weight bits until the share is known to 1 %",
        "9,604 random weights",
        "",
    ),
    "mrfi.to_margin": (
        "a bit of 1e-3 of all features, until the share is known to 1 %",
        "the same, 9,604 times",
        "",
    ),
    "torch.one_image": ("one image, no faults", _SAME, ""),
    "torch.features": ("64 images, no faults", _SAME, ""),
}
_DENSE = {
    "bernoulli": "`jax.random.bernoulli` of every bit",
    "dense": "jeff's own, `bit_words(method='dense')`",
}
_CONTESTS = {
    "one_image": "faulty models per second, one image",
    "features": "faulty inferences per second, 64 images",
    "prefix_reuse": "faulty inferences per second, late weights, 64 images",
}


def fault_benchmark(record: dict[str, Any]) -> str:
    """The record as tables.

    Args:
      record: Made by ``benchmarks/faults.py``.

    Returns:
      Markdown.

    Examples:
      >>> measure = {"name": "ratio.mrfi.features", "value": 1.5, "unit": ""}
      >>> record = {"device": "cpu, 2 cores", "versions": {}, "notes": [], "measures": [
      ...     measure | {"low": 1.25, "high": 2.0}]}
      >>> print(fault_benchmark(record).splitlines()[2])
      | a bit of 1e-3 of all features | MRFI: the same | 1.500 [1.250, 2.000] |  | 3 |
    """
    found = {m["name"]: m for m in record["measures"]}
    parts = [_ratios(found), _speeds(found), _margins(found), _injections(found)]
    parts += [_accuracy(found), _costs(found)]
    lines = [line for part in parts if part for line in (*part, "")]
    lines += _LINES["noted"](record)
    return "\n".join([*lines, "", _made("faults", record)])


def fault_summary(record: dict[str, Any]) -> str:
    """The ratios that the project set itself goals for.

    Args:
      record: As `fault_benchmark`.

    Returns:
      Markdown.
    """
    goals = {name for name, (_, _, goal) in _RATIOS.items() if goal}
    found = {
        m["name"]: m
        for m in record["measures"]
        if m["name"].removeprefix("ratio.").removesuffix("_one_core") in goals
    }
    return "\n".join([*_ratios(found), "", _made("faults", record)])


def fault_sampler(record: dict[str, Any]) -> str:
    """The samplers by rate, on all cores and on one.

    Args:
      record: Made by ``benchmarks/fault_sampler.py``.

    Returns:
      Markdown.

    Examples:
      >>> ends = {"low": 90.0, "high": 130.0, "unit": ""}
      >>> measures = [
      ...     {"name": "seconds.draw.sparse.0.001", "value": 8e-5, **ends},
      ...     {"name": "ratio.dense.draw.sparse.0.001", "value": 112.5, **ends},
      ... ]
      >>> record = {"device": "cpu, 2 cores", "versions": {}, "notes": [],
      ...     "measures": measures}
      >>> lines = fault_sampler(record).splitlines()
      >>> lines[2]
      "| jeff's own, `bit_words(method='dense')` | 112.5 [90.0, 130.0] |  | 100 |"
      >>> lines[6]
      '| 0.001 | sparse, drawn | 80 µs | 112.5 [90.0, 130.0] |  |  |  |  |'
    """
    found = {m["name"]: m for m in record["measures"]}
    lines = _sampler_goal(found)
    lines += [
        "| rate per bit | sampler | all cores | dense over it [95 %] | Bernoulli over "
        "it [95 %] | one core | dense over it [95 %] | Bernoulli over it [95 %] |",
        "| ---: | --- | ---: | --- | --- | ---: | --- | --- |",
    ]
    prefix, kinds = "seconds.", {"draw": "drawn", "flip": "drawn and flipped"}
    for case in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        kind, method, rate = case.split(".", 2)
        if rate.endswith("_one_core"):
            continue
        cells = [rate, f"{method}, {kinds[kind]}"]
        for own in (case, f"{case}_one_core"):
            took = found.get(prefix + own)
            cells.append("" if took is None else quantity(took["value"], "s"))
            for other in ("dense", "bernoulli"):
                cells.append(_cell(found.get(f"ratio.{other}.{own}")))
        lines.append(_row(cells))
    lines += ["", *_LINES["noted"](record)]
    return "\n".join([*lines, "", _made("fault_sampler", record)])


def _sampler_goal(found: Measures) -> list[str]:
    """Dense masks over sparse ones at 1e-3, for which there is a goal."""
    lines = [
        "| dense mask at 1e-3, over the sparse one | all cores | one core | goal |",
        "| --- | --- | --- | ---: |",
    ]
    for name, what in _DENSE.items():
        measure = f"ratio.{name}.draw.sparse.0.001"
        both = [found.get(measure + own) for own in ("", "_one_core")]
        if any(both):
            lines.append(_row([what, *map(_cell, both), "100"]))
    return [*lines, ""] if len(lines) > 2 else []


def _ratios(found: Measures) -> list[str]:
    lines = [
        "| jeff | beside it | times faster, all cores | one core | goal |",
        "| --- | --- | --- | --- | ---: |",
    ]
    names = {"pytorchfi": "PyTorchFI", "mrfi": "MRFI", "torch": "torch"}
    for name, (ours, theirs, goal) in _RATIOS.items():
        both = [found.get(f"ratio.{name}{s}") for s in ("", "_one_core")]
        if any(both):
            peer = names[name.partition(".")[0]]
            lines.append(_row([ours, f"{peer}: {theirs}", *map(_cell, both), goal]))
    return lines if len(lines) > 2 else []


def _speeds(found: Measures) -> list[str]:
    lines = [
        "| counted | contender | all cores | one core |",
        "| --- | --- | ---: | ---: |",
    ]
    for contest, counted in _CONTESTS.items():
        for name, m in found.items():
            kind, _, rest = name.partition(".")
            if kind.endswith("_per_second") and rest.startswith(f"{contest}."):
                contender = rest.partition(".")[2]
                other = found.get(f"{kind}.{contest}_one_core.{contender}")
                cells = [counted, f"`{contender}`", _rate(m), _rate(other)]
                lines.append(_row(cells))
    return lines if len(lines) > 2 else []


def _injections(found: Measures) -> list[str]:
    lines = [
        "| rule | injections [fewest, most] | times fewer | answers changed [95 %] |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, m in found.items():
        if not name.startswith("injections."):
            continue
        rule = name.partition(".")[2]
        ratio = found.get(f"ratio.fixed_rule.{rule}")
        cells = [
            f"`{rule}`",
            _whole(m),
            "" if ratio is None else f"{ratio['value']:.1f}",
            _cell(found.get(f"changed_share.{rule}"), "fraction"),
        ]
        lines.append(_row(cells))
    return lines if len(lines) > 2 else []


def _margins(found: Measures) -> list[str]:
    prefix = "seconds_to_margin."
    lines = [
        "| until the share is known to 1 % | seconds | injections | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        count = found.get(f"injections_to_margin.{name}")
        share = found.get(f"share_at_margin.{name}")
        cells = [
            f"`{name}`",
            _cell(found[prefix + name], "s"),
            "9,604" if count is None else _whole(count),
            "" if share is None else quantity(share["value"], "fraction"),
        ]
        lines.append(_row(cells))
    return lines if len(lines) > 2 else []


def _accuracy(found: Measures) -> list[str]:
    lines = [
        "| faults | rate | accuracy [95 %] | answers changed [95 %] |",
        "| --- | ---: | --- | --- |",
    ]
    for name, m in found.items():
        if name.startswith("float_accuracy."):
            faults = f"none, float32, {name.partition('.')[2]}"
            lines.append(_row([faults, "0", _cell(m, "fraction"), ""]))
    if "golden_accuracy" in found:
        clean = _cell(found["golden_accuracy"], "fraction")
        lines.append(_row(["none", "0", clean, ""]))
    for name, m in found.items():
        kind, _, rest = name.partition(".")
        if kind == "accuracy":
            faults, _, rate = rest.partition(".")
            changed = _cell(found.get(f"changed.{rest}"), "fraction")
            lines.append(_row([f"`{faults}`", rate, _cell(m, "fraction"), changed]))
    return lines if len(lines) > 2 else []


def _costs(found: Measures) -> list[str]:
    prefix = "compile_seconds."
    lines = ["| case | compilation | intermediate results |", "| --- | ---: | ---: |"]
    for case in (n.removeprefix(prefix) for n in found if n.startswith(prefix)):
        size = found.get(f"temporary_bytes.{case}")
        cells = [
            f"`{case}`",
            quantity(found[prefix + case]["value"], "s"),
            "" if size is None else quantity(size["value"], "bytes"),
        ]
        lines.append(_row(cells))
    return lines if len(lines) > 2 else []


def _made(script: str, record: dict[str, Any]) -> str:
    return _LINES["made"](f"python benchmarks/{script}.py", record)


def _rate(m: dict[str, Any] | None) -> str:
    return "" if m is None else f"{m['value']:,.0f} [{m['low']:,.0f}, {m['high']:,.0f}]"


def _whole(m: dict[str, Any]) -> str:
    if m["low"] is None:
        return f"{m['value']:,.0f}"
    return f"{m['value']:,.0f} [{m['low']:,.0f}, {m['high']:,.0f}]"


def _cell(m: dict[str, Any] | None, unit: str = "") -> str:
    if m is None:
        return ""
    number, suffix, ends = estimate(m["value"], m["low"], m["high"], unit)
    return " ".join(part for part in (number, suffix, ends) if part)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
