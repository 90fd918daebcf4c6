"""``jeff run mbq``: MBQ and its baselines on the embedded vision-language model.

Every trial draws its own calibration questions and its own held-out questions; all
methods of a trial see the same ones, so that differences between methods are paired.
What the trials gave is put into words and plots by `jeff.mbq.study.report`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jeff import program
from jeff.data import embedded
from jeff.evaluate import Outcome, Progress, Study
from jeff.mbq import methods
from jeff.mbq.config import BalanceConfig
from jeff.mbq.report import Quantized
from jeff.mbq.study import data as study_data
from jeff.mbq.study.data import Questions
from jeff.mbq.study.report import FULL, Answers, Runs, outcome
from jeff.models import pretrained
from jeff.quantize import QuantConfig

__all__ = ["STUDY", "MBQSettings", "answer_loss", "run"]

_METHODS: dict[str, Callable[..., Quantized]] = {
    "rtn": methods.rtn,
    "awq": methods.awq,
    "smoothquant": methods.smoothquant,
    "mbq": methods.mbq,
}
# Mean of six benchmarks for the 7B model of table 2 (arXiv 2412.19509), 3 bits.
_PAPER = {
    "full": "67.5 %, a 7B model, 6 benchmarks",
    "rtn": "47.1 %, same at W3A16",
    "awq": "60.6 %, same at W3A16",
    "mbq": "65.3 %, same at W3A16",
}
# How many questions ship in the wheel; a test holds this against the file.
_EMBEDDED = {"calibration_questions": 1467, "held_out_questions": 2948}


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

    Raises:
      TypeError: If a field is not an integer.
      ValueError: If a field is out of range.

    Examples:
      >>> MBQSettings(weight_bits=4).group_size
      128
      >>> MBQSettings(held_out_questions=5000)
      Traceback (most recent call last):
        ...
      ValueError: held_out_questions must be in [1, 2948], as many as are embedded: 5000
    """

    group_size: int = 128
    weight_bits: int = 3
    calibration_questions: int = 32
    held_out_questions: int = 512
    trials: int = 5
    grid: int = 20

    def __post_init__(self):
        """Checks the fields."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{field.name} must be an integer: {value!r}")
        if self.weight_bits not in (2, 3, 4, 8):
            raise ValueError(f"weight_bits must be 2, 3, 4 or 8: {self.weight_bits}")
        for name in ("group_size", "grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: {getattr(self, name)}")
        for name, most in _EMBEDDED.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"{name} must be in [1, {most}], as many as are embedded: "
                    f"{getattr(self, name)}"
                )
        if self.trials < 2:
            raise ValueError(f"trials must be at least 2 for intervals: {self.trials}")


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
      ValueError: If the group size does not divide the input of a layer (it is named),
        or an embedded file is missing or altered.

    Examples:
      Takes half a minute, so it is not run here::

        outcome = run(MBQSettings(), key_seed=0, progress=NoProgress())
        [m.value for m in outcome.measures if m.name == "w3_loss_increase.mbq"]

    References:
      arXiv 2412.19509, table 2 (the claims) and section 4.1 (the settings).
    """
    data = embedded.load_vqa()
    apply, params = program.functional(pretrained.load_tiny_vlm())
    configs = _configs(settings)
    weight_only, both = configs
    runs: Runs = {
        weight_only: ("rtn", "awq", "mbq"),
        both: ("rtn", "smoothquant", "mbq"),
    }
    # Before the slow part: it needs no data, and checks the group size.
    rounded = {
        setting: methods.rtn(apply, params, [study_data.shapes(data)], config)
        for setting, config in configs.items()
    }
    calibration, held_out = study_data.parts(data, progress)
    steps = 1 + sum(map(len, runs.values()))
    progress.stage("calibrate, quantize, ask", settings.trials * steps)
    ask = {"full": _asker(apply, ())}
    ask |= {setting: _asker(apply, rounded[setting].rules) for setting in configs}
    trials: list[dict[tuple[str, str], Answers]] = []
    report = rounded[weight_only].report
    for trial in range(settings.trials):
        rng = np.random.default_rng([key_seed, trial])
        drawn = calibration.draw(rng, settings.calibration_questions)
        batch = study_data.batch(drawn)
        questions = held_out.draw(rng, settings.held_out_questions)
        answers: dict[tuple[str, str], Answers] = {}
        answers[FULL] = ask["full"](params, questions)
        progress.advance()
        for setting, names in runs.items():
            for name in names:
                quantized = rounded[setting]
                if name != "rtn":  # which looks at no data
                    quantized = _METHODS[name](
                        apply, params, [batch], configs[setting], loss=_total_loss
                    )
                if (setting, name) == (weight_only, "mbq"):
                    report = quantized.report
                answers[setting, name] = ask[setting](quantized.params, questions)
                progress.advance()
        trials.append(answers)
    return outcome(
        trials,
        runs,
        report,
        claims=_PAPER if settings.weight_bits == 3 else {},
        about=(
            f"Each of {settings.trials} trials draws {settings.calibration_questions} "
            f"calibration and {settings.held_out_questions} held-out questions of "
            "easy-VQA; all methods of a trial share them."
        ),
    )


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


def _configs(settings: MBQSettings) -> dict[str, BalanceConfig]:
    """The two settings by name: weights only, then weights and activations."""
    weights = QuantConfig(
        bits=settings.weight_bits,
        group_size=settings.group_size,
        scale_dtype="float16",
    )
    return {
        f"w{settings.weight_bits}": BalanceConfig(weights=weights, grid=settings.grid),
        "w4a8": BalanceConfig(
            weights=QuantConfig(bits=4, symmetric=True, scale_dtype="float16"),
            activation_bits=8,
            grid=settings.grid,
        ),
    }


def _asker(
    apply: Callable[..., Any], rules: tuple[Any, ...]
) -> Callable[[Any, Questions], Answers]:
    """Compiled question answering with full precision or quantized parameters."""
    rewritten = program.rewrite(apply, *rules)

    @jax.jit
    def answer(params, vision, tokens, answers):
        logits = rewritten(params, vision, tokens)
        return answer_loss(logits, answers), logits.argmax(-1) == answers

    def ask(params, questions: Questions) -> Answers:
        return Answers(*map(np.asarray, answer(params, *questions)))

    return ask


STUDY = Study(
    presets={
        "default": MBQSettings(),
        "full": MBQSettings(
            trials=20, calibration_questions=128, held_out_questions=2000
        ),
    },
    run=run,
)
