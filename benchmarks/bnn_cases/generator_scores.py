"""Accuracy and calibration of voters drawn by imperfect generators.

The embedded network for digits is asked about all test digits by sets of voters whose
weights come from each generator in turn: those of hardware (simulated to the bit),
those of few random bits, and `jax.random.normal`, which they are held against. Every
column of every kernel has a key of its own, which seeds the generator anew.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from bnn_cases import subject
from bnn_cases.generators import GENERATORS, Draw
from bnn_cases.scores import measure as measure_of
from jeff import dm_bnn, evaluate, prng
from jeff.models import digits_mlp

__all__ = [
    "AGAIN",
    "REFERENCE",
    "UNITS",
    "Scores",
    "Settings",
    "measure",
    "notes",
    "score_measures",
    "verdict",
    "welch",
]

REFERENCE = "normal32"
"""What the others are held against."""
AGAIN = "normal32_again"
"""The reference with other keys, so that one sees what no difference looks like."""
UNITS = {"accuracy": "fraction", "ece": "fraction", "nll": "nats"}
"""What is scored."""


class Settings(NamedTuple):
    """What is asked.

    Attributes:
      voters: Independent voters of a set.
      sets: Sets of voters by each generator, at least 2.
      reference_sets: Sets by `REFERENCE`: more, as all others are held against them.
      seed: Of the draws.
    """

    voters: int
    sets: int
    reference_sets: int
    seed: int


class Scores(NamedTuple):
    """What the sets of one generator scored on all test digits, ``[sets]`` each.

    Attributes:
      accuracy: Fraction of the digits that the mean softmax of the voters gets right.
      ece: Its calibration error, 15 bins of equal width.
      nll: Its mean negative log-likelihood, in nats.
    """

    accuracy: np.ndarray
    ece: np.ndarray
    nll: np.ndarray


def measure(
    settings: Settings, generators: Mapping[str, Draw] = GENERATORS
) -> dict[str, Scores]:
    """Asks the sets of voters of every generator.

    Args:
      settings: What is asked.
      generators: By name, `REFERENCE` among them.

    Returns:
      By generator, the reference first, then `AGAIN`.
    """
    posterior = subject.digits_posterior()
    test = jax.tree.map(jnp.asarray, digits_mlp.split()[1])
    reference = generators[REFERENCE]
    found = {}
    for name, draw in {REFERENCE: reference, AGAIN: reference, **generators}.items():
        asked = _asked(draw, settings.voters)
        own = prng.named_key(jax.random.key(settings.seed), name)
        sets = settings.reference_sets if name == REFERENCE else settings.sets
        keys = jax.random.split(own, sets)
        scores = [asked(key, posterior, test.images, test.labels) for key in keys]
        found[name] = Scores(*np.asarray(scores).T)
    return found


def verdict(found: Mapping[str, Scores]) -> str:
    """Which generators score otherwise than the reference, all of them together.

    Args:
      found: Of `measure`.

    Returns:
      A sentence. Welch's t over sets, 95 % for all comparisons together (Bonferroni).
    """
    names = [n for n in found if n not in (REFERENCE, AGAIN)]
    level = 1 - 0.05 / (len(names) * len(UNITS))
    shown = []
    for name in names:
        for kind, unit in UNITS.items():
            wide = _difference(found, name, kind, level)
            if wide.low > 0 or wide.high < 0:
                how = "above" if wide.value > 0 else "below"
                size = abs(wide.value)
                text = f"{size:.2%}" if unit == "fraction" else f"{size:.4f} {unit}"
                shown.append(f"{name} by its {kind}, {text} {how}")
    if not shown:
        return (
            "Of no generator do accuracy, ece or nll differ demonstrably from those of "
            f"{REFERENCE} (95 % for all comparisons together, Bonferroni)."
        )
    return (
        f"Told from {REFERENCE} (95 % for all comparisons together, Bonferroni): "
        f"{'; '.join(shown)}. No other difference is shown."
    )


def notes(settings: Settings, found: Mapping[str, Scores]) -> list[str]:
    """What a reader of the scores must know, and what they show.

    Args:
      settings: What was asked.
      found: Of `measure`.

    Returns:
      Sentences.
    """
    return [
        "accuracy, ece, nll.GENERATOR: the embedded digits' network, all test digits, "
        f"{settings.voters} independent voters whose weights are drawn by the "
        "generator, which every column of a kernel seeds anew; mean and Student's "
        f"interval over {settings.sets} sets of voters, of {REFERENCE} "
        f"{settings.reference_sets}. clt2 adds 2 words, clt 12. "
        f"SCORE_difference.GENERATOR.{REFERENCE}: on the same digits, Welch's interval "
        f"over sets, each 95 % by itself; {AGAIN} is {REFERENCE} with other keys. "
        "Intervals are of the draws, not of other digits or networks.",
        verdict(found),
    ]


def score_measures(found: Mapping[str, Scores]) -> list[evaluate.Measure]:
    """Mean scores, and differences from the reference.

    Args:
      found: Of `measure`.

    Returns:
      Measures ``SCORE.GENERATOR`` and ``SCORE_difference.GENERATOR.REFERENCE``, with
      Student's and Welch's intervals over sets.
    """
    measures = []
    for name, scores in found.items():
        for kind, unit in UNITS.items():
            mean = evaluate.student_t(getattr(scores, kind))
            measures.append(measure_of(f"{kind}.{name}", mean, unit))
        for kind, unit in UNITS.items() if name != REFERENCE else ():
            full_name = f"{kind}_difference.{name}.{REFERENCE}"
            apart = _difference(found, name, kind)
            measures.append(measure_of(full_name, apart, unit))
    return measures


def welch(ours: np.ndarray, theirs: np.ndarray, level: float) -> evaluate.Interval:
    """Interval for the difference of two means of independent samples.

    Args:
      ours: ``[n]``, not all the same as each other and as `theirs`.
      theirs: ``[m]``.
      level: Confidence level in (0, 1).

    Returns:
      Mean of `ours` minus that of `theirs`; the trials are those of `ours`.

    Examples:
      >>> [round(x, 3) for x in welch(np.arange(4.0), 2 * np.arange(4.0), 0.95)[:3]]
      [-1.5, -5.364, 2.364]
      >>> welch(np.ones(3), np.zeros(3), 0.95)[:3]
      (1.0, 1.0, 1.0)

    References:
      B. L. Welch, "The generalization of 'Student's' problem when several different
      population variances are involved", Biometrika 34, 1947.
    """
    samples = [np.asarray(s, np.float64) for s in (ours, theirs)]
    errors = [s.var(ddof=1) / s.size for s in samples]
    spread = float(sum(errors))
    value = float(samples[0].mean() - samples[1].mean())
    if spread == 0:  # neither sample varies: no degrees of freedom, no width
        return evaluate.Interval(value, value, value, samples[0].size)
    parts = (e**2 / (s.size - 1) for e, s in zip(errors, samples, strict=True))
    freedom = spread**2 / sum(parts)
    half = float(special.stdtrit(freedom, 0.5 + level / 2)) * spread**0.5
    return evaluate.Interval(value, value - half, value + half, samples[0].size)


def _difference(
    found: Mapping[str, Scores], name: str, kind: str, level: float = 0.95
) -> evaluate.Interval:
    ours, theirs = (getattr(found[n], kind) for n in (name, REFERENCE))
    return welch(ours, theirs, level)


@functools.cache  # the reference is asked twice
def _asked(draw: Draw, voters: int) -> Any:
    @jax.jit
    def run(key, posterior, images, labels):
        logits = dm_bnn.predict(
            digits_mlp.apply, posterior, images, key,
            voters=voters, mode="naive", draw=draw,
        )  # fmt: skip
        probs = jax.nn.softmax(logits).mean(0)
        floor = jnp.finfo(probs.dtype).tiny  # of what may have become 0 by rounding
        loss = evaluate.nll(jnp.maximum(probs, floor), labels)
        scores = (f(probs, labels) for f in (evaluate.accuracy, evaluate.ece))
        return jnp.stack([*scores, loss])

    return run
