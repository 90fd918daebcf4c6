"""What the voters and the twin say about digits and about what is none."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from jeff.dm_bnn.predict import predict
from jeff.dm_bnn.study.settings import DMBNNSettings
from jeff.dm_bnn.study.subject import QUICK, Subject
from jeff.dm_bnn.uncertainty import Predictive, predictive
from jeff.models import digits_mlp

__all__ = ["Answers", "ask", "ece_if_calibrated"]


class Answers(NamedTuple):
    """Predictions for ``[kinds, images]``, in the order of `subject.KINDS`.

    Attributes:
      bayesian: Of all voters.
      deterministic: Of the twin.
    """

    bayesian: Predictive
    deterministic: Predictive


def ask(subject: Subject, settings: DMBNNSettings, key: jax.Array) -> Answers:
    """Asks both networks about all inputs.

    Args:
      subject: The networks and inputs.
      settings: How many voters.
      key: Of the voters. Inputs of the same number in different kinds get the same
        noise; within a kind each has its own.

    Returns:
      The answers.
    """
    twin = subject.trained.deterministic
    return _answers(subject.posterior, twin, subject.inputs, key, settings.voters)


@functools.partial(jax.jit, static_argnums=4, compiler_options=QUICK)
def _answers(posterior, twin, inputs, key, voters):
    def voted(x):
        return predict(digits_mlp.apply, posterior, x, key, voters=voters, mode="lrt")

    logits = jax.vmap(voted, out_axes=1)(inputs)
    alone = digits_mlp.apply(twin, inputs)[None]
    return Answers(predictive(logits), predictive(alone))


def ece_if_calibrated(
    probs: np.ndarray, rng: np.random.Generator, *, draws: int = 1000, bins: int = 15
) -> np.ndarray:
    """The calibration error that a calibrated network of such confidence would show.

    Whether an image is right is drawn with its confidence as the probability, so that
    all of the error is that of a finite sample.

    Args:
      probs: ``[images, classes]``.
      rng: Of the draws.
      draws: How many.
      bins: Of equal width, as in `jeff.evaluate.ece`.

    Returns:
      An error per draw, ``[draws]``.

    Examples:
      >>> errors = ece_if_calibrated(np.full((100, 2), 0.5), np.random.default_rng(0))
      >>> round(float(errors.mean()), 2)  # sqrt(2 / pi) / (2 sqrt(100))
      0.04
    """
    confidence = np.asarray(probs, np.float64).max(axis=-1)
    edges = np.arange(1, bins) / bins
    inside = np.searchsorted(edges, confidence)[:, None] == np.arange(bins)
    right = rng.random((draws, confidence.size)) < confidence
    gaps = (right - confidence) @ inside.astype(np.float64)
    return np.abs(gaps).sum(axis=1) / confidence.size
