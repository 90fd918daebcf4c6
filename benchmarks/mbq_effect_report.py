"""From the cells of the effect study to its record and figures."""

import collections
import dataclasses
import json
import math
import pathlib
import re
from typing import Any

import mbq_effect_figure as figure
import mbq_effect_methods as methods
import numpy as np
from mbq_effect_statistics import Comparison, compare, verdicts

from jeff import io
from jeff.evaluate import Measure, student_t

__all__ = ["write"]

MANY = 20  # seeds from which on the test is over seeds
Cells = dict[str, list[dict[str, Any]]]  # by method, one per seed
SAID = {"less": "loses less", "more": "loses more", "not shown": "no difference shown"}
NOTES = (
    "Intervals are Student's t, 95 %. Those of loss increases, accuracies and "
    "differences are over the calibration samples, all judged on the same held-out "
    "questions; those called images are over the held-out images, at the mean of the "
    "calibration samples.",
    "p_holm is adjusted for all comparisons of a model (rule and family in the "
    "protocol); p_wilcoxon is not adjusted and decides nothing.",
    "smollm2: the published weights are 4-bit codes in groups of 32 already; full "
    "precision means those numbers in float32.",
)


def write(settings: Any) -> None:
    """Writes the record and the figures of all complete settings.

    Args:
      settings: Settings of the study.
    """
    measures: list[Measure] = []
    notes = list(NOTES)
    seconds = 0.0
    for model, plan in methods.PLANS.items():
        file = settings.out / f"{model}.full.json"
        if not file.exists():
            notes.append(f"{model}: not run.")
            continue
        full = json.loads(file.read_text())
        notes += [f"{note}." for note in full["notes"]]
        measures += full_measures(model, full)
        seeds = getattr(settings, f"{model}_seeds")
        found = {}
        for setting, names in plan.items():
            cells = read(settings, f"{model}.{setting}", names, seeds)
            if not cells:
                notes.append(f"{model}.{setting}: not run for all seeds, not reported.")
                continue
            notes += [
                f"{model}.{setting}.{name}: not run for all seeds, not reported."
                for name in names
                if name not in cells
            ]
            found[setting] = cells
            seconds += sum(c["seconds"] for rows in cells.values() for c in rows)
            measures += setting_measures(f"{model}.{setting}", full, cells)
        pairs = compared(full, found)
        measures += pair_measures(model, pairs, many_seeds=seeds >= MANY)
        measures += ablation_measures(model, full, found)
        notes += rounding_notes(model, found)
        if found:
            figure.write(
                settings.figures / f"mbq_effect_{model}.svg", model, measures, found
            )
    fields = dataclasses.asdict(settings).items()
    record = {
        "format": io.RESULT_FORMAT,
        "system": "mbq_effect",
        "preset": "protocol",
        "settings": {
            k: v for k, v in fields if k.startswith(("embedded", "smollm2", "first"))
        },
        "seed": settings.first_seed,
        "versions": io.versions(),
        "device": io.device(),
        "seconds": round(seconds, 1),
        "measures": [dataclasses.asdict(m) for m in measures],
        "notes": notes,
    }
    io.write_atomically(settings.record, io.result_text(record))


def read(settings: Any, prefix: str, names: tuple[str, ...], seeds: int) -> Cells:
    """The cells of a setting; empty if one is missing that is no ablation."""
    cells: Cells = {}
    first = settings.first_seed
    for name in names:
        count = 1 if name == "rtn" else seeds
        files = [
            pathlib.Path(settings.out) / f"{prefix}.{name}.{seed}.json"
            for seed in range(first, first + count)
        ]
        if all(file.exists() for file in files):
            cells[name] = [json.loads(file.read_text()) for file in files]
        elif name not in methods.ABLATIONS:
            return {}
    return cells


def stacked(cells: list[dict[str, Any]], field: str = "losses") -> np.ndarray:
    """``[seeds, questions]``."""
    return np.asarray([cell[field] for cell in cells], np.float64)


def full_measures(model: str, full: dict[str, Any]) -> list[Measure]:
    """Full precision: loss, accuracy, perplexity."""
    made = [
        Measure(f"{model}.full.loss", np.mean(full["losses"]), "nats"),
        Measure(f"{model}.full.accuracy", np.mean(full["right"]), "fraction"),
    ]
    if full["text"]:
        value = math.exp(np.mean(full["text"]))
        made.append(Measure(f"{model}.full.perplexity", value))
    return made


def setting_measures(prefix: str, full: dict[str, Any], cells: Cells) -> list[Measure]:
    """Loss increase, accuracy and perplexity of every method of a setting."""
    made = []
    for name, rows in cells.items():
        rise = stacked(rows).mean(1) - np.mean(full["losses"])
        made.append(over_seeds(f"{prefix}.loss_increase.{name}", rise, "nats"))
    for name, rows in cells.items():
        right = stacked(rows, "right").mean(1)
        made.append(over_seeds(f"{prefix}.accuracy.{name}", right, "fraction"))
    if full["text"]:
        for name, rows in cells.items():
            rise = stacked(rows, "text").mean(1) - np.mean(full["text"])
            made.append(over_seeds(f"{prefix}.text_loss_increase.{name}", rise, "nats"))
        for name, rows in cells.items():
            value = np.exp(stacked(rows, "text").mean(1)).mean()
            made.append(Measure(f"{prefix}.perplexity.{name}", value))
    stored = next(iter(cells.values()))[0]["bytes"]
    return [*made, Measure(f"{prefix}.bytes", stored, "bytes")]


def over_seeds(name: str, values: np.ndarray, unit: str) -> Measure:
    """A mean with its interval over the seeds; none for a single value."""
    if len(values) == 1:
        return Measure(name, values[0], unit)
    t = student_t(values)
    low, high = t.low, t.high
    if unit == "fraction":
        low, high = max(low, 0.0), min(high, 1.0)
    return Measure(name, t.value, unit, low=low, high=high, trials=t.trials)


def compared(full, found: dict[str, Cells]) -> dict[str, Comparison]:
    """The pre-declared comparisons of a model by ``setting.a_minus_b``."""
    images = np.asarray(full["images"])
    return {
        f"{setting}.{a}_minus_{b}": compare(
            stacked(cells[a]), stacked(cells[b]), images
        )
        for setting, cells in found.items()
        for a, b in methods.comparisons(tuple(cells))
    }


def pair_measures(
    model: str, pairs: dict[str, Comparison], *, many_seeds: bool
) -> list[Measure]:
    """Differences with both intervals, p values and what may be said."""
    said = verdicts(list(pairs.values()), many_seeds=many_seeds)
    made = []
    for (name, c), (verdict, p) in zip(pairs.items(), said, strict=True):
        for suffix, found in (("", c.seeds), (".images", c.images)):
            made.append(
                Measure(
                    f"{model}.{name}{suffix}",
                    found.value,
                    "nats",
                    low=found.low,
                    high=found.high,
                    trials=found.trials,
                )
            )
        made.append(Measure(f"{model}.{name}.p_holm", p))
        made.append(Measure(f"{model}.{name}.p_wilcoxon", c.p_wilcoxon))
        shown = {"less": -1, "more": 1, "not shown": 0}[verdict]
        made.append(Measure(f"{model}.{name}.shown", shown))
    return made


def ablation_measures(model: str, full, found: dict[str, Cells]) -> list[Measure]:
    """Each variant minus MBQ, over the seeds; no claim is made of these."""
    made = []
    for setting, cells in found.items():
        variants = [n for n in cells if n in methods.ABLATIONS or n == "mbq_clip"]
        for name in variants:
            difference = stacked(cells[name]).mean(1) - stacked(cells["mbq"]).mean(1)
            made.append(
                over_seeds(f"{model}.{setting}.{name}_minus_mbq", difference, "nats")
            )
    return made


def rounding_notes(model: str, found: dict[str, Cells]) -> list[str]:
    """What the library noted, once for all blocks and seeds, with how often."""
    seen: collections.Counter[str] = collections.Counter()
    for setting, cells in found.items():
        for name, rows in cells.items():
            for note in (note for row in rows for note in row["notes"]):
                said = re.sub(r"^block \d+, ", "", note)
                seen[f"{model}.{setting}.{name}: {said}"] += 1
    return [f"{line} ({count} times)." for line, count in seen.items()]
