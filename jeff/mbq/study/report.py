"""What the trials of ``jeff run mbq`` gave, as measures, a table, plots and sentences.

Plain NumPy on the host. A setting is a short name such as ``"w3"``; a run is a setting
and a method.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jeff.evaluate import Figure, Measure, Outcome, Series, Table, student_t
from jeff.mbq.report import Report

__all__ = ["FULL", "Answers", "Runs", "outcome"]

FULL: tuple[str, str] = ("full", "full")
"""The run without quantization."""

Runs = Mapping[str, tuple[str, ...]]
"""Methods by setting; the first setting quantizes weights only."""


class Answers(NamedTuple):
    """How one run answered the held-out questions of one trial.

    Attributes:
      losses: float32 ``[questions]``, cross entropy of the right answer in nats.
      correct: bool ``[questions]``.
    """

    losses: np.ndarray
    correct: np.ndarray


Trials = Sequence[Mapping[tuple[str, str], Answers]]
Increases = Mapping[tuple[str, str], np.ndarray]


def outcome(
    trials: Trials,
    runs: Runs,
    report: Report,
    *,
    claims: Mapping[str, str],
    about: str,
) -> Outcome:
    """Everything the command line shows and stores.

    Args:
      trials: Answers by run, `FULL` among them; one entry per trial.
      runs: Methods by setting.
      report: Of MBQ in the first setting, last trial.
      claims: What the paper says about accuracy, by method.
      about: A sentence: how the trials were drawn.

    Returns:
      Measures, the table of balance groups, figures and notes.
    """
    setting = next(iter(runs))
    increases = {
        (s, m): np.array([_mean(t[s, m]) - _mean(t[FULL]) for t in trials])
        for s, methods in runs.items()
        for m in methods
    }
    measures = [_increase(*run, values) for run, values in increases.items()]
    for method in ("full", *runs[setting]):
        run = FULL if method == "full" else (setting, method)
        values = np.array([t[run].correct.mean() for t in trials])
        name = f"{setting}_accuracy.{method}"
        measures.append(_accuracy(name, values, claims.get(method)))
    measures += [
        Measure("block_bytes.full", report.dense_bytes, "bytes"),
        Measure(
            f"block_bytes.{setting}",
            report.stored_bytes,
            "bytes",
            baseline=report.dense_bytes,
        ),
    ]
    return Outcome(
        measures=tuple(measures),
        tables=(_groups_table(report, setting),),
        figures=_figures(trials, runs, increases, report),
        notes=(
            about,
            _CAVEAT,
            *_comparisons(runs, increases),
            *(f"{setting}: {note}" for note in report.notes),
        ),
    )


_CAVEAT = (
    "Intervals are Student's t, 95 %, over the trials, which draw from the same pool "
    "of questions: they say how much the draw matters, not how other images would do. "
    "The model is a toy trained for this purpose; its numbers do not stand for a large "
    "one."
)


def _mean(answers: Answers) -> float:
    return float(answers.losses.mean(dtype=np.float64))


def _increase(setting: str, method: str, values: np.ndarray) -> Measure:
    t = student_t(values)
    return Measure(
        f"{setting}_loss_increase.{method}",
        t.value,
        "nats",
        baseline=0.0,
        low=t.low,
        high=t.high,
        trials=t.trials,
    )


def _accuracy(name: str, values: np.ndarray, claim: str | None) -> Measure:
    t = student_t(values)
    return Measure(
        name,
        t.value,
        "fraction",
        low=max(t.low, 0.0),
        high=min(t.high, 1.0),
        trials=t.trials,
        paper=claim,
    )


def _comparisons(runs: Runs, increases: Increases) -> list[str]:
    """MBQ against each other method of its setting, trial by trial."""
    notes = []
    for setting, methods in runs.items():
        for other in methods:
            if other == "mbq":
                continue
            t = student_t(increases[setting, "mbq"] - increases[setting, other])
            verdict = "no difference shown"
            if t.high < 0:
                verdict = "MBQ loses less"
            elif t.low > 0:
                verdict = "MBQ loses more"
            notes.append(
                f"{setting}: MBQ minus {other}, paired over trials: {t.value:+.4f} "
                f"nats [{t.low:+.4f}, {t.high:+.4f}]: {verdict}."
            )
    return notes


def _groups_table(report: Report, setting: str) -> Table:
    return Table(
        title=f"Balance groups, as inferred ({setting.upper()}, last trial)",
        columns=(
            "layer",
            "linears",
            "folded into",
            "exponent",
            "vision weight",
            "change by folding",
        ),
        rows=tuple(
            (
                str(group.block),
                ", ".join(map(_module, group.sites)),
                ", ".join(n.removeprefix("layers.") for n in group.fold) or group.note,
                None if np.isnan(group.exponent) else float(group.exponent),
                _plain(group.ratios.get("vision")),
                float(group.change),
            )
            for group in report.groups
        ),
        caption="Which linears are scaled together, and into what the scale is folded, "
        "is read off the program. Language tokens weigh 1. The change is of the "
        "block's output before quantization, relative: rounding alone.",
    )


def _module(site: str) -> str:
    """``down`` of ``layers.mlp.down.kernel``."""
    return site.split(".")[-2]


def _plain(value: float | None) -> float | None:
    return None if value is None else float(value)


def _figures(
    trials: Trials, runs: Runs, increases: Increases, report: Report
) -> dict[str, Figure]:
    figures = {"loss_by_method": _loss_figure(increases)}
    sensitivity = _sensitivity_series(report)
    if sensitivity:
        figures["sensitivity"] = Figure(
            kind="lines",
            title="How strongly the loss reacts, by layer and modality",
            x_label="layer",
            y_label="mean |dL/dy| per token",
            y_scale="log",
            series=sensitivity,
            caption="Gradient of the loss at the outputs of the inspected linears, "
            "last trial. Vision tokens of the last layer no longer reach the answer: "
            "0, not drawn.",
        )
    setting = next(iter(runs))
    figures["error_histogram"] = _error_figure(trials[0], setting, runs[setting])
    return figures


def _loss_figure(increases: Increases) -> Figure:
    intervals = [student_t(values) for values in increases.values()]
    return Figure(
        kind="bars",
        title="Loss on held-out answers, minus full precision",
        x_label="setting and method",
        y_label="loss increase (nats)",
        series=(
            Series(
                "loss increase",
                tuple(f"{setting} {method}" for setting, method in increases),
                tuple(t.value for t in intervals),
                tuple(t.low for t in intervals),
                tuple(t.high for t in intervals),
            ),
        ),
        caption="95 % intervals over calibration and question draws; lower is better.",
    )


def _sensitivity_series(report: Report) -> tuple[Series, ...]:
    series = []
    for site, by_modality in report.sensitivities.items():
        for modality, values in by_modality.items():
            layers = [i for i, v in enumerate(values) if v > 0]
            if layers:
                reacts = tuple(float(values[i]) for i in layers)
                name = f"{modality}, {_module(site)}"
                series.append(Series(name, tuple(layers), reacts))
    return tuple(series)


def _error_figure(
    trial: Mapping[tuple[str, str], Answers], setting: str, methods: Sequence[str]
) -> Figure:
    base = trial[FULL].losses
    errors = {m: trial[setting, m].losses - base for m in methods}
    largest = float(np.quantile(np.abs(np.concatenate(list(errors.values()))), 0.99))
    reach = max(largest, 1e-6)  # an exact method has a histogram too
    edges = np.linspace(-reach, reach, 41)
    return Figure(
        kind="histograms",
        title=f"Loss change of single questions ({setting.upper()}, first trial)",
        x_label="loss change (nats)",
        y_label="questions",
        y_scale="log",
        series=tuple(
            Series(
                method,
                tuple(edges),
                tuple(np.histogram(np.clip(error, -reach, reach), edges)[0]),
            )
            for method, error in errors.items()
        ),
        caption="Right of 0 the quantized model does worse. What is beyond the 99th "
        "percentile is counted in the outermost bins.",
    )
