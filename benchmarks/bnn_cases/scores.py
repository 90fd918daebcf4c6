"""Scores of classifiers, differences of two, and detection of other inputs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from jeff import evaluate

__all__ = [
    "calibrated_ece",
    "detection_measures",
    "difference_measures",
    "losses",
    "measure",
    "score_measures",
    "temperature",
]

_LEAST = np.finfo(np.float32).tiny


def losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each example, in nats.

    Args:
      probs: float32 ``[examples, classes]``.
      labels: ``[examples]``.

    Returns:
      float32 ``[examples]``. A probability below the smallest normal float32 counts as
      that, 87 nats: it may have become 0 by rounding.

    Examples:
      >>> losses(np.array([[0.5, 0.5], [1.0, 0.0]], np.float32), np.array([0, 1]))
      array([ 0.6931472, 87.33655  ], dtype=float32)
    """
    own = np.asarray(probs)[np.arange(len(labels)), np.asarray(labels)]
    return -np.log(np.maximum(own, _LEAST))


def score_measures(name: str, probs: Any, labels: Any) -> list[evaluate.Measure]:
    """Accuracy, log-likelihood, calibration and Brier score.

    Args:
      name: Of the predictions.
      probs: float32 ``[examples, classes]``.
      labels: ``[examples]``.

    Returns:
      Measures ``SCORE.NAME``: `accuracy` with Wilson's interval, `nll` with Student's,
      ``ece_if_calibrated`` with the central 95 % of `calibrated_ece`; others have none.
    """
    probs, labels = jnp.asarray(probs), jnp.asarray(labels)
    right = np.asarray(probs.argmax(-1) == labels)
    accuracy = evaluate.wilson(int(right.sum()), right.size)
    single = {
        "ece": float(evaluate.ece(probs, labels)),
        "ece_equal_mass": float(evaluate.ece(probs, labels, mass="equal")),
        "brier": float(evaluate.brier(probs, labels)),
    }
    draws = np.asarray(calibrated_ece(probs))
    ends = np.quantile(draws, [0.025, 0.975])
    by_chance = evaluate.Interval(draws.mean(), *ends, len(draws))
    nll = evaluate.student_t(losses(np.asarray(probs), np.asarray(labels)))
    print(
        f"{name}: accuracy {accuracy.value:.4f}, NLL {nll.value:.4f}, "
        f"ECE {single['ece']:.4f}",
        flush=True,
    )
    return [
        measure(f"ece_if_calibrated.{name}", by_chance, "fraction"),
        measure(f"accuracy.{name}", accuracy, "fraction"),
        measure(f"nll.{name}", nll, "nats"),
        *(
            evaluate.Measure(f"{k}.{name}", v, "" if k == "brier" else "fraction")
            for k, v in single.items()
        ),
    ]


@jax.jit
def calibrated_ece(probs: jax.Array) -> jax.Array:
    """The error that these probabilities would show if they were right, 1,000 times."""

    def one(key):
        return evaluate.ece(probs, jax.random.categorical(key, jnp.log(probs)))

    return jax.lax.map(one, jax.random.split(jax.random.key(0), 1000), batch_size=50)


def difference_measures(
    name: str, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray
) -> list[evaluate.Measure]:
    """How two predictions of the same examples differ, paired example by example.

    Args:
      name: ``OURS.THEIRS``.
      ours: float32 ``[examples, classes]``.
      theirs: Likewise.
      labels: ``[examples]``.

    Returns:
      Measures ``accuracy_difference.NAME`` and ``nll_difference.NAME``, ours minus
      theirs, with Student's intervals: better is above 0 and below 0.
    """
    right = [(p.argmax(-1) == labels).astype(np.float64) for p in (ours, theirs)]
    loss = [losses(p, labels).astype(np.float64) for p in (ours, theirs)]
    return [
        measure(f"{kind}_difference.{name}", evaluate.student_t(each), unit)
        for kind, each, unit in (
            ("accuracy", right[0] - right[1], "fraction"),
            ("nll", loss[0] - loss[1], "nats"),
        )
    ]


def detection_measures(
    kind: str, uncertainties: Mapping[str, Any], positive: Any
) -> list[evaluate.Measure]:
    """Areas under the curve for telling inputs from elsewhere.

    Args:
      kind: What the others are.
      uncertainties: By name, ``[examples]``.
      positive: bool ``[examples]``, which are the others.

    Returns:
      Measures ``auroc.KIND.NAME`` with DeLong's intervals.
    """
    measures = []
    for name, uncertainty in uncertainties.items():
        area = evaluate.delong(jnp.asarray(uncertainty), jnp.asarray(positive))
        print(f"{kind}, {name}: AUROC {area.value:.4f}", flush=True)
        measures.append(measure(f"auroc.{kind}.{name}", area, "fraction"))
    return measures


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The number to divide logits by for the best log-likelihood of their mean softmax.

    Args:
      logits: ``[members, examples, classes]``, of one network or of an ensemble.
      labels: ``[examples]``, of examples that none of them was trained on.

    Returns:
      The temperature, between 1/20 and 20.

    Examples:
      Logits of 4 that are right three times out of four:

      >>> logits = np.tile([4.0, 0.0], (1, 4, 1))
      >>> round(temperature(logits, np.array([0, 0, 0, 1])), 2)  # 4 / ln 3
      3.64

    References:
      C. Guo et al., "On calibration of modern neural networks", ICML 2017
      (arXiv 1706.04599), section 4.2.
    """
    logits, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(inverse: float) -> float:  # convex for one network
        own = special.log_softmax(logits * inverse, axis=-1)[:, rows, labels]
        return -special.logsumexp(own, axis=0).mean()

    found = optimize.minimize_scalar(loss, bounds=(1 / 20, 20), method="bounded")
    return float(1 / found.x)


def measure(name: str, found: evaluate.Interval, unit: str) -> evaluate.Measure:
    """A measure with its 95 % interval."""
    ends = {"low": found.low, "high": found.high, "trials": found.trials}
    return evaluate.Measure(name, found.value, unit, **ends)
