"""``jeff run mbq``: MBQ and its baselines on the embedded vision-language model.

Every trial draws its own calibration questions and its own held-out questions; all
methods of a trial see the same ones, so that differences between methods are paired.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff import program
from jeff.data import embedded
from jeff.evaluate import Figure, Measure, Outcome, Progress, Series, Study, Table
from jeff.evaluate import interval as intervals
from jeff.mbq import methods
from jeff.mbq.calibration import Batch
from jeff.mbq.config import BalanceConfig
from jeff.models import pretrained, tiny_vlm
from jeff.quantize import QuantConfig

__all__ = ["STUDY", "MBQSettings", "run"]

_METHODS: dict[str, Callable[..., methods.Quantized]] = {
    "rtn": methods.rtn,
    "awq": methods.awq,
    "smoothquant": methods.smoothquant,
    "mbq": methods.mbq,
}
_PLAN = {"w3": ("rtn", "awq", "mbq"), "w4a8": ("rtn", "smoothquant", "mbq")}
# Mean of six benchmarks for LLaVA-onevision-7B (arXiv 2412.19509, table 2).
_PAPER = {
    "full": "67.5 %, LLaVA-onevision-7B, 6 benchmarks",
    "rtn": "47.1 %, same at W3A16",
    "awq": "60.6 %, same at W3A16",
    "mbq": "65.3 %, same at W3A16",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MBQSettings:
    """Settings of the study.

    Attributes:
      group_size: Weights that share a scale in the weight-only setting.
      weight_bits: Width of the weight-only codes.
      calibration_questions: Questions each trial calibrates on.
      held_out_questions: Questions each trial is judged on.
      trials: Number of trials, each with its own questions.
      grid: Exponents tried by the searches.
    """

    group_size: int = 128
    weight_bits: int = 3
    calibration_questions: int = 32
    held_out_questions: int = 512
    trials: int = 5
    grid: int = 20

    def __post_init__(self):
        """Checks the fields."""
        QuantConfig(bits=self.weight_bits, group_size=self.group_size)
        for name in ("calibration_questions", "held_out_questions", "grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)}")
        if self.trials < 2:
            raise ValueError(f"trials must be at least 2 for intervals: {self.trials}")


class _Part(NamedTuple):
    """Questions with the vision tokens of their images."""

    vision: np.ndarray
    tokens: np.ndarray
    answers: np.ndarray

    def take(self, rows: np.ndarray) -> "_Part":
        return _Part(self.vision[rows], self.tokens[rows], self.answers[rows])


class _Trial(NamedTuple):
    """Loss and correctness per question, by setting and method."""

    losses: dict[tuple[str, str], np.ndarray]
    correct: dict[tuple[str, str], np.ndarray]


def answer_loss(logits: jax.Array, answers: jax.Array) -> jax.Array:
    """Cross entropy of each question's answer, in nats.

    Args:
      logits: ``[questions, vocabulary]``.
      answers: int ``[questions]``.

    Returns:
      float32 ``[questions]``.

    Examples:
      >>> print(answer_loss(jnp.zeros((1, 4)), jnp.array([2])).round(3))
      [1.386]
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, answers[:, None], axis=-1)[:, 0]


def _total_loss(logits: jax.Array, answers: jax.Array) -> jax.Array:
    return answer_loss(logits, answers).sum()


def run(settings: MBQSettings, *, key_seed: int, progress: Progress) -> Outcome:
    """Runs the study.

    Args:
      settings: What to run.
      key_seed: Seed of the draws of questions.
      progress: Told about stages and steps.

    Returns:
      Loss increase of every method with a 95 % interval over the trials, accuracy,
      bytes really stored, and figures.

    Raises:
      ValueError: If more questions are asked for than are embedded.
    """
    calibration, held_out = _parts(settings, progress)
    apply, params = program.functional(pretrained.load_tiny_vlm())
    configs = _configs(settings)
    runs = [(s, m) for s, names in _PLAN.items() for m in names]
    progress.stage("calibrate, quantize, ask", settings.trials * (len(runs) + 1))
    ask = _Asker(apply)
    trials: list[_Trial] = []
    reports: dict[tuple[str, str], methods.Report] = {}
    for trial in range(settings.trials):
        rng = np.random.default_rng([key_seed, trial])
        batch = _batch(calibration, rng, settings.calibration_questions)
        rows = rng.permutation(len(held_out.answers))[: settings.held_out_questions]
        questions = held_out.take(rows)
        result = _Trial({}, {})
        ask.record(result, ("full", "full"), params, (), questions)
        progress.advance()
        for setting, method in runs:
            quantized = _METHODS[method](
                apply, params, [batch], configs[setting], loss=_total_loss
            )
            reports[setting, method] = quantized.report
            ask.record(
                result, (setting, method), quantized.params, quantized.rules, questions
            )
            progress.advance()
        trials.append(result)
    return _outcome(settings, trials, reports)


class _Asker:
    """Compiled question answering; one program per set of rules."""

    def __init__(self, apply: Callable[..., Any]):
        self._apply = apply
        self._compiled: dict[Any, Any] = {}

    def record(self, trial: _Trial, name, params, rules, questions: _Part) -> None:
        """Answers the questions and keeps the losses under `name`."""
        setting = name[0]
        if setting not in self._compiled:
            rewritten = program.rewrite(self._apply, *rules)

            def answer(params, vision, tokens, answers):
                logits = rewritten(params, vision, tokens)
                return answer_loss(logits, answers), logits.argmax(-1) == answers

            self._compiled[setting] = jax.jit(answer)
        losses, correct = self._compiled[setting](params, *questions)
        trial.losses[name] = np.asarray(losses)
        trial.correct[name] = np.asarray(correct)


def _configs(settings: MBQSettings) -> dict[str, BalanceConfig]:
    return {
        "w3": BalanceConfig(
            weights=QuantConfig(
                bits=settings.weight_bits,
                group_size=settings.group_size,
                scale_dtype="float16",
            ),
            grid=settings.grid,
        ),
        "w4a8": BalanceConfig(
            weights=QuantConfig(bits=4, symmetric=True, scale_dtype="float16"),
            activation_bits=8,
            grid=settings.grid,
        ),
    }


def _parts(settings: MBQSettings, progress: Progress) -> tuple[_Part, _Part]:
    """Calibration and held-out questions with their vision tokens."""
    data = embedded.load_vqa()
    for name, part in (("calibration", data.calibration), ("held_out", data.test)):
        asked = getattr(settings, f"{name}_questions")
        if asked > len(part.answers):
            raise ValueError(
                f"{name}_questions is {asked}, only {len(part.answers)} are embedded"
            )
    images = np.concatenate([data.calibration.images, data.test.images])
    features = _features(images, progress)
    split = len(data.calibration.images)
    return tuple(
        _Part(values[part.image_index], part.tokens, part.answers)
        for part, values in (
            (data.calibration, features[:split]),
            (data.test, features[split:]),
        )
    )


def _features(images: np.ndarray, progress: Progress, size: int = 50) -> np.ndarray:
    """Vision tokens of images, in batches of one compiled program."""
    count = -(-len(images) // size)
    progress.stage("look at the images", count)
    padded = np.concatenate(
        [images, np.repeat(images[-1:], count * size - len(images), 0)]
    )
    look = jax.jit(tiny_vlm.vision_tokens)
    vision = pretrained.load_vision()
    parts = []
    for i in range(count):
        parts.append(np.asarray(look(vision, padded[i * size : (i + 1) * size])))
        progress.advance()
    return np.concatenate(parts)[: len(images)]


def _batch(part: _Part, rng: np.random.Generator, size: int) -> Batch:
    chosen = part.take(rng.permutation(len(part.answers))[:size])
    tokens = jnp.asarray(chosen.tokens)
    return Batch(
        inputs=(jnp.asarray(chosen.vision), tokens),
        masks=tiny_vlm.token_masks(tokens),
        targets=jnp.asarray(chosen.answers),
    )


# From the trials to the outcome.


def _outcome(settings, trials, reports) -> Outcome:
    increases = {
        (s, m): np.array(
            [t.losses[s, m].mean() - t.losses["full", "full"].mean() for t in trials]
        )
        for s, names in _PLAN.items()
        for m in names
    }
    measures = []
    for (setting, method), values in increases.items():
        ci = intervals.student_t(values)
        measures.append(
            Measure(
                f"{setting}_loss_increase.{method}",
                values.mean(),
                "nats",
                baseline=0.0,
                low=ci.low,
                high=ci.high,
                trials=len(values),
            )
        )
    for method in ("full", *_PLAN["w3"]):
        name = ("full", "full") if method == "full" else ("w3", method)
        values = np.array([t.correct[name].mean() for t in trials])
        ci = intervals.student_t(values)
        measures.append(
            Measure(
                f"w3_accuracy.{method}",
                values.mean(),
                "fraction",
                low=max(ci.low, 0.0),
                high=min(ci.high, 1.0),
                trials=len(values),
                paper=_PAPER[method],
            )
        )
    report = reports["w3", "mbq"]
    measures += [
        Measure("block_bytes.full", report.dense_bytes, "bytes"),
        Measure(
            "block_bytes.w3", report.stored_bytes, "bytes", baseline=report.dense_bytes
        ),
    ]
    return Outcome(
        measures=measures,
        tables=[_scales_table(reports["w3", "mbq"])],
        figures=_figures(trials, increases, reports["w3", "mbq"]),
        notes=_notes(settings, increases),
    )


def _notes(settings: MBQSettings, increases) -> list[str]:
    notes = [
        f"Each of {settings.trials} trials draws {settings.calibration_questions} "
        f"calibration and {settings.held_out_questions} held-out questions of easy-VQA; "
        "all methods of a trial share them. Intervals are Student's t, 95 %, over the "
        "trials. The model is a toy trained for this purpose; its numbers do not "
        "stand for a large one.",
    ]
    for setting, other in (
        ("w3", "awq"),
        ("w3", "rtn"),
        ("w4a8", "smoothquant"),
        ("w4a8", "rtn"),
    ):
        difference = increases[setting, "mbq"] - increases[setting, other]
        ci = intervals.student_t(difference)
        verdict = (
            "MBQ loses less"
            if ci.high < 0
            else "MBQ loses more"
            if ci.low > 0
            else "no difference shown"
        )
        notes.append(
            f"{setting}: MBQ minus {other}, paired over trials: "
            f"{difference.mean():+.4f} nats [{ci.low:+.4f}, {ci.high:+.4f}]: {verdict}."
        )
    return notes


def _scales_table(report: methods.Report) -> Table:
    rows = []
    for g in report.groups:
        names = ", ".join(n.split(".")[-2] for n in g.sites)
        vision = g.ratios.get("vision")
        rows.append(
            (
                g.block,
                names,
                ", ".join(n.removeprefix("layers.") for n in g.fold) or g.note,
                None if np.isnan(g.exponent) else g.exponent,
                vision,
                g.change,
            )
        )
    return Table(
        title="Balance groups, as inferred (W3, last trial)",
        columns=(
            "layer",
            "linears",
            "folded into",
            "exponent",
            "vision weight",
            "change by folding",
        ),
        rows=rows,
        caption="Which linears are scaled together, and into what the scale is folded, "
        "is read off the program. Language tokens weigh 1.",
    )


def _figures(trials, increases, report: methods.Report) -> dict[str, Figure]:
    figures = {"loss_by_method": _loss_figure(increases)}
    series = []
    for site, by_modality in report.sensitivities.items():
        module = site.split(".")[-2]
        for modality, values in by_modality.items():
            layers = [i for i, v in enumerate(values) if v > 0]
            if layers:
                series.append(
                    Series(
                        f"{modality}, {module}",
                        layers,
                        [float(values[i]) for i in layers],
                    )
                )
    figures["sensitivity"] = Figure(
        kind="lines",
        title="How strongly the loss reacts, by layer and modality",
        x_label="layer",
        y_label="mean |dL/dy| per token",
        y_scale="log",
        series=series,
        caption="Gradient of the loss at the outputs of the inspected linears. Vision "
        "tokens of the last layer no longer reach the answer: 0, not drawn.",
    )
    first = trials[0]
    base = first.losses["full", "full"]
    errors = {m: first.losses["w3", m] - base for m in _PLAN["w3"]}
    reach = float(np.quantile(np.abs(np.concatenate(list(errors.values()))), 0.99))
    edges = np.linspace(-reach, reach, 41)
    figures["error_histogram"] = Figure(
        kind="histograms",
        title="Loss change of single questions (W3, first trial)",
        x_label="loss change (nats)",
        y_label="questions",
        series=[
            Series(m, edges, np.histogram(np.clip(e, -reach, reach), edges)[0])
            for m, e in errors.items()
        ],
        caption="Beyond the 99th percentile counted in the outermost bins.",
    )
    return figures


def _loss_figure(increases) -> Figure:
    bars = []
    for setting, names in _PLAN.items():
        for method in names:
            ci = intervals.student_t(increases[setting, method])
            bars.append(
                (
                    f"{setting} {method}",
                    increases[setting, method].mean(),
                    ci.low,
                    ci.high,
                )
            )
    labels, means, lows, highs = zip(*bars, strict=True)
    return Figure(
        kind="bars",
        title="Loss on held-out answers, minus full precision",
        x_label="setting and method",
        y_label="loss increase (nats)",
        series=[Series("loss increase", labels, means, lows, highs)],
        caption="95 % intervals over calibration and question draws; lower is better.",
    )


STUDY = Study(
    presets={
        "default": MBQSettings(),
        "full": MBQSettings(
            trials=20, calibration_questions=128, held_out_questions=2000
        ),
    },
    run=run,
)
