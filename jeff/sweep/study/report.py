"""A fault study as measures, tables and plots."""

from collections.abc import Sequence
from typing import Any

from jeff.evaluate import Figure, Interval, Measure, Series, Table
from jeff.evaluate import Outcome as StudyOutcome
from jeff.sweep.campaigns.curve import CurvePoint
from jeff.sweep.planning.plan import counted
from jeff.sweep.single_flips.vulnerability import Vulnerability
from jeff.sweep.study.named_faults import NamedFault
from jeff.sweep.study.settings import StudySettings
from jeff.sweep.study.study import FaultStudy, Found
from jeff.sweep.study.targets import expected_faults

__all__ = ["study_outcome"]

_SHOWN = 40  # rows of a heat map, so that names can be read
_MEASURED = ("accuracy", "accuracy_new_images", "sdc", "critical", "nonfinite")


def study_outcome(study: FaultStudy, found: Found) -> StudyOutcome:
    """What a study hands to the record and the report.

    Args:
      study: The study.
      found: What `run_study` found.

    Returns:
      Measures ``accuracy.RATE``, ``accuracy_new_images.RATE`` (but after a rigorous
      rule that stops), ``sdc.RATE``, ``critical.RATE`` and ``nonfinite.RATE``
      (fractions; the baseline of an accuracy is the golden one), tables, plots, and
      notes that say how intervals were made.

    Examples:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from jeff.sweep import examples
      >>> from jeff.sweep.study.study import prepare_study, run_study
      >>> from jeff.sweep.study.settings import StudySettings
      >>> apply, params = lambda p, x: x @ p["w"], {"w": jnp.eye(4)}
      >>> data = examples(apply, params, np.eye(4, dtype=np.float32))
      >>> settings = StudySettings(rates=(0.1,), trials=4)
      >>> study = prepare_study(apply, params, data, settings, jax.random.key(0))
      >>> outcome = study_outcome(study, run_study(study))
      >>> [m.name for m in outcome.measures]
      ['accuracy.0.1', 'accuracy_new_images.0.1', 'sdc.0.1', 'critical.0.1',
       'nonfinite.0.1']
    """
    measures = []
    for point in found.curve:
        measures += _measures(point, study.golden_accuracy)
    measures.sort(key=lambda m: _MEASURED.index(m.name.partition(".")[0]))
    tables, figures = [_curve_table(study, found.curve)], _curves(study, found.curve)
    if found.maps:
        figures["vulnerability"] = _heat_map(found.maps["layer_bit"])
        figures["by_bit"] = _by_bit(found.maps["bit"])
        titles = ("by layer", "by bit", "by layer and bit")
        for title, by in zip(titles, ("layer", "bit", "layer_bit"), strict=True):
            tables.append(_map_table(f"Vulnerability {title}", found.maps[by]))
    return StudyOutcome(
        measures=tuple(measures),
        tables=tuple(tables),
        figures=figures,
        notes=_notes(study, found),
    )


def _measures(point: CurvePoint, golden: float) -> list[Measure]:
    rate, trials = f"{point.rate:.6g}", point.trials

    def made(name, interval, baseline=None):
        value, low, high, n = interval
        return Measure(
            f"{name}.{rate}", value, "fraction", baseline=baseline,
            low=min(low, value), high=max(high, value), trials=n,
        )  # fmt: skip

    new = () if point.any_images is None else (point.any_images,)
    return [
        made("accuracy", point.accuracy, golden),
        *(made("accuracy_new_images", interval, golden) for interval in new),
        made("sdc", point.sdc),
        made("critical", point.critical),
        Measure(f"nonfinite.{rate}", point.nonfinite, "fraction", trials=trials),
    ]


def _curve_table(study: FaultStudy, curve: Sequence[CurvePoint]) -> Table:
    new = all(p.any_images is not None for p in curve)
    return Table(
        title="Accuracy by rate",
        columns=(
            "rate", "faults per trial", "trials", "accuracy", "low", "high",
            *("low on new images", "high on new images") * new, "between devices (sd)",
            "answers changed", "right made wrong",
            "without an answer", "confidence lost",
        ),
        rows=tuple(
            (
                p.rate, round(expected_faults(study.fault, p.rate, study.targets), 4),
                p.trials, p.accuracy.value, p.accuracy.low, p.accuracy.high,
                *(p.any_images[1:3] if new and p.any_images is not None else ()),
                p.device**0.5, p.sdc.value, p.critical.value, p.nonfinite,
                p.confidence_drop,
            )
            for p in curve
        ),
        caption=f"The rate is the {study.fault.swept}. Faults per trial: expected "
        "number. Shares are fractions.",
    )  # fmt: skip


def _curves(study: FaultStudy, curve: Sequence[CurvePoint]) -> dict[str, Figure]:
    points = [p for p in sorted(curve) if p.rate > 0] or list(curve)
    rates = tuple(p.rate for p in points)
    scale = "log" if len(rates) > 1 and min(rates) > 0 else "linear"
    label = study.fault.swept
    level = f"{100 * study.settings.level:g} %"

    def line(name, values):
        return _with_ends(name, rates, values)

    golden = Series("without faults", rates, (study.golden_accuracy,) * len(rates))
    accuracy = Figure(
        kind="lines",
        title=f"Accuracy by {label}",
        x_label=label,
        y_label="accuracy",
        x_scale=scale,
        series=(line("with faults", [p.accuracy for p in points]), golden),
        caption=f"Mean over trials with {level} intervals.",
    )
    changed = Figure(
        kind="lines",
        title="What happens to answers",
        x_label=label,
        y_label="share of answers",
        x_scale=scale,
        series=(
            line("changed", [p.sdc for p in points]),
            line("right made wrong", [p.critical for p in points]),
            Series("no answer", rates, tuple(p.nonfinite for p in points)),
        ),
        caption=f"Shares of images with {level} intervals.",
    )
    return {"accuracy": accuracy, "answers": changed}


def _with_ends(name: str, x: tuple[Any, ...], values: Sequence[Interval]) -> Series:
    """A line with its band."""
    return Series(
        name,
        x,
        tuple(v.value for v in values),
        tuple(min(v.low, v.value) for v in values),
        tuple(max(v.high, v.value) for v in values),
    )


def _heat_map(rows: Sequence[Vulnerability]) -> Figure:
    layers: dict[str, list[Vulnerability]] = {}
    for row in rows:
        layers.setdefault(row.layer, []).append(row)
    worst = sorted(layers, key=lambda n: -max(r.sdc.value for r in layers[n]))
    kept = [name for name in layers if name in set(worst[:_SHOWN])]
    rest = len(layers) - len(kept)
    left_out = f" The {rest} layers where least changes are left out." if rest else ""
    return Figure(
        kind="heatmap",
        title="Answers changed by one flipped bit",
        x_label="bit, 0 the lowest",
        y_label="share of answers",
        series=tuple(
            Series(name, tuple(r.bit for r in cells), tuple(r.sdc.value for r in cells))
            for name, cells in ((n, layers[n]) for n in kept)
        ),
        caption="Share of images whose answer changes when this bit of a random word "
        f"of this layer is flipped.{left_out}",
    )


def _by_bit(rows: Sequence[Vulnerability]) -> Figure:
    return Figure(
        kind="lines",
        title="Answers changed, by bit",
        x_label="bit, 0 the lowest",
        y_label="share of answers",
        series=(
            _with_ends("all layers", tuple(r.bit for r in rows), [r.sdc for r in rows]),
        ),
        caption="Words of all layers counted alike.",
    )  # fmt: skip


def _map_table(title: str, rows: Sequence[Vulnerability]) -> Table:
    return Table(
        title=title,
        columns=(
            "layer", "bit", "injections", "images", "answers changed", "low", "high",
            "right made wrong", "without an answer",
        ),
        rows=tuple(
            (
                r.layer or "all", "all" if r.bit is None else r.bit, r.injections,
                r.images, r.sdc.value, r.sdc.low, r.sdc.high, r.critical_share.value,
                r.nonfinite / r.images,
            )
            for r in rows
        ),
        caption="One flipped bit per injection; shares are fractions.",
    )  # fmt: skip


def _notes(study: FaultStudy, found: Found) -> tuple[str, ...]:
    s, images = study.settings, len(study.data.labels)
    level = f"{100 * s.level:g} %"
    notes = [
        f"{_what(study.fault, s.target)} on {counted(len(study.targets), 'array')}; "
        f"{counted(images, 'image')}, accuracy without faults "
        f"{100 * study.golden_accuracy:.2f} %.",
    ]
    notes.append(_intervals(s))
    if all(p.any_images is not None for p in found.curve):
        notes.append(
            "These are for other devices on these images; those on new images are for "
            "other devices and other images alike, at the same level, approximate."
        )
    if s.target == "features" and not s.permanent:
        kind = (
            "Wilson's interval, the exact one under 10 events"
            if s.margin is None
            else "Clopper and Pearson's interval, at the same look"
        )
        notes.append(
            "Every image of every trial has faults of its own; shares of answers are "
            f"proportions with {kind}, {level}."
        )
    elif s.margin is None or s.margin_method == "student_t":
        notes.append(
            "A trial is one faulty device that sees all images; shares of answers are "
            "means over devices, with intervals like that of the accuracy (from 0 or "
            f"to 1 where all devices but a few are there), {level}."
        )
    else:
        notes.append(
            "A trial is one faulty device that sees all images; shares of answers are "
            f"means over devices, with intervals like that of the accuracy, {level}."
        )
    if study.left_out:
        names = ", ".join(study.left_out[:3])
        more = f" and {len(study.left_out) - 3} more" * (len(study.left_out) > 3)
        notes.append(f"Left out of the map, since they lie in loops: {names}{more}.")
    return tuple(notes)


def _intervals(s: StudySettings) -> str:
    """How the accuracy's interval was made, and what it is worth."""
    level = f"{100 * s.level:g} %"
    student = (
        "Student's t, or a bound where fewer than 10 devices differ from the others; "
        "approximate, as it misses devices that rarely are far worse than the rest"
    )
    if s.margin is None:
        return f"Accuracy: mean over trials, {level}, {student}."
    stopped = (
        "Accuracy: mean over trials; each rate ran until it was known to "
        f"{s.margin:g} or {s.trials:,} trials, and the {level} intervals are "
    )
    if s.margin_method == "student_t":
        return f"{stopped}at the level of the last look ({student})."
    return (
        f"{stopped}valid at any time of stopping, for any distribution of devices "
        "(empirical Bernstein's, its level divided over the looks)."
    )


def _what(fault: NamedFault, target: str) -> str:
    given = "".join(f"; {n}={_word(v)}" for n, v in fault.given.items())
    hit = "weights and features" if target == "both" else target
    return f"{fault.name} ({fault.swept}{given}) of {hit}"


def _word(value: Any) -> str:
    """A setting as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
