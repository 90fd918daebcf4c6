"""A study that computes nothing of interest, quickly: stands in for a real system."""

import dataclasses
import time
from typing import Literal

import numpy as np

from jeff.evaluate import Figure, Measure, Outcome, Series, Study, Table, student_t


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Fields of every kind the command line can set."""

    bits: int = 3
    rate: float = 0.1
    methods: tuple[str, ...] = ("rtn", "awq", "mbq")
    mode: Literal["plain", "fail", "nan", "sleep"] = "plain"
    seeds: int = 5
    label: str | None = None
    exact: bool = False

    def __post_init__(self):
        if self.bits < 1:
            raise ValueError(f"bits must be positive: {self.bits}")


def run(settings, *, key_seed, progress):
    """Draws numbers that look like a quantization study's."""
    rng = np.random.default_rng(key_seed)
    progress.stage("calibrate", settings.seeds)
    measures = []
    losses = {}
    for i, method in enumerate(settings.methods):
        losses[method] = rng.normal(0.3 / (1 + i), 0.02, settings.seeds)
    for _ in range(settings.seeds):
        if settings.mode == "sleep":
            print("sleeping", flush=True)
            time.sleep(30)
        progress.advance()
    if settings.mode == "fail":
        raise RuntimeError("the study\nbroke")
    progress.stage("evaluate", len(settings.methods))
    for method, loss in losses.items():
        t = student_t(loss)
        measures.append(
            Measure(
                f"w{settings.bits}_loss_increase.{method}",
                float("nan") if settings.mode == "nan" else t.value,
                "nats",
                low=t.low,
                high=t.high,
                trials=t.trials,
                paper="lower than AWQ (table 2)" if method == "mbq" else None,
            )
        )
        progress.advance()
    measures += [
        Measure("accuracy.full", 0.928, "fraction"),
        Measure("accuracy.mbq", 0.911, "fraction", baseline=0.928, paper=0.95),
        Measure("block_bytes.full", 1_400_000, "bytes"),
        Measure("block_bytes.w3", 290_000, "bytes", baseline=1_400_000),
        Measure("energy_j", 3.2e-9, "J"),
    ]
    return Outcome(
        measures=measures,
        tables=[_layers()],
        figures=_figures(losses, rng),
        notes=["Held-out questions, 300 images; t interval over seeds."],
    )


def _layers():
    return Table(
        title="Layers",
        columns=["layer", "bits", "error"],
        rows=[["layers.0.attn.q", 3, 0.0123], ["layers.0.attn.k", 3, None]],
        caption="Relative error of the layer's output.",
    )


def _figures(losses, rng):
    steps, edges = np.arange(12), np.linspace(-3, 3, 41)
    fall = 0.8**steps
    intervals = {m: student_t(v) for m, v in losses.items()}
    return {
        "loss": Figure(
            kind="bars",
            title="Loss increase by method",
            x_label="method",
            y_label="loss increase (nats)",
            series=[
                Series(
                    "W3",
                    list(intervals),
                    [t.value for t in intervals.values()],
                    [t.low for t in intervals.values()],
                    [t.high for t in intervals.values()],
                ),
                Series("W4A8", list(losses), [v.mean() / 3 for v in losses.values()]),
            ],
            caption="Mean over seeds with 95 % intervals.",
        ),
        "sensitivity": Figure(
            kind="lines",
            title="Sensitivity per layer",
            x_label="layer",
            y_label="mean |dL/dy|",
            y_scale="log",
            series=[
                Series("language", steps, 3 * fall, 2 * fall, 4 * fall),
                Series("vision", steps, 0.3 * fall**0.5),
            ],
        ),
        "errors": Figure(
            kind="histograms",
            title="Weight errors",
            x_label="error / step",
            y_label="weights",
            series=[
                Series(name, edges, np.histogram(rng.normal(0, s, 9000), edges)[0])
                for name, s in (("rtn", 1.0), ("mbq", 0.6))
            ],
        ),
        "frontier": Figure(
            kind="scatter",
            title="Bytes against loss",
            x_label="bytes",
            y_label="loss (nats)",
            x_scale="log",
            series=[
                Series("designs", 10 ** rng.uniform(4, 6, 60), rng.uniform(0, 1, 60))
            ],
        ),
    }


STUDY = Study(
    presets={
        "default": Settings(),
        "large": Settings(bits=4, seeds=8),
        "sleep": Settings(mode="sleep"),
    },
    run=run,
)
