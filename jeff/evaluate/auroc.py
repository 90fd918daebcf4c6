"""Area under the receiver operating characteristic, with DeLong's interval."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jeff.evaluate.interval import Interval

__all__ = ["auroc", "delong"]


def auroc(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Probability that a positive example scores higher than a negative one.

    Mann and Whitney's statistic over all pairs, a tie counting one half: the area under
    the receiver operating characteristic, without a choice of thresholds. For the
    detection of inputs from elsewhere let `scores` be an uncertainty and `positive` say
    which inputs are from elsewhere.

    Args:
      scores: ``[examples]``, integers or floating, infinite ones too.
      positive: bool ``[examples]``.

    Returns:
      A float32 scalar in [0, 1]; NaN if a score is NaN, or there is no positive or no
      negative example.

    Raises:
      ValueError: If the shapes differ, or are not ``[examples]``.
      TypeError: If `positive` is not boolean, or `scores` are boolean or complex.

    Examples:
      Of four pairs two are in order and one is a tie:

      >>> scores = jnp.array([0.1, 0.5, 0.5, 0.3])
      >>> print(auroc(scores, jnp.array([False, False, True, True])))
      0.625

    References:
      H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is
      stochastically larger than the other", Annals of Mathematical Statistics 18, 1947;
      J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a ROC
      curve", Radiology 143, 1982.
    """
    return _auroc(scores, positive)


def delong(scores: jax.Array, positive: jax.Array, *, level: float = 0.95) -> Interval:
    """`auroc` with DeLong's interval, on the host.

    With ``V_i`` the share of negatives below positive `i` and ``W_j`` that of positives
    above negative `j`, the variance of the area is
    ``var(V) / positives + var(W) / negatives``. The interval is taken on the scale of
    ``log(a / (1 - a))``, so that it stays inside [0, 1]. At an area of 1 the variance
    says nothing; there the lower end is ``((1 - level) / 2)^(1 / m)`` for `m` examples
    of the rarer kind, and likewise at 0. (Derivation: `m` pairs without a common
    example are independent, and all of them are in order with probability ``area^m``.)

    Args:
      scores: ``[examples]``, integers or floating.
      positive: bool ``[examples]``; at least two true and two false.
      level: Confidence level in (0, 1).

    Returns:
      The area and its interval; `trials` is the number of examples.

    Raises:
      ValueError: If the shapes do not fit, a score is NaN, there are too few examples,
        or the level is out of range.
      TypeError: If `positive` is not boolean, or `scores` are boolean or complex.

    Examples:
      >>> scores, positive = jnp.arange(8.0), jnp.arange(8) % 3 == 0
      >>> [round(x, 3) for x in delong(scores, positive)[:3]]
      [0.4, 0.073, 0.85]

    References:
      E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, "Comparing the areas under
      two or more correlated receiver operating characteristic curves", Biometrics 44,
      1988.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1): {level=}")
    above = np.asarray(_wins(scores, positive), np.float64)
    truth = np.asarray(positive)
    if min(truth.sum(), (~truth).sum()) < 2:
        raise ValueError(
            "need two positive and two negative examples: "
            f"{truth.sum()} of {truth.size}"
        )
    if np.isnan(above).any():
        raise ValueError("a score is NaN")
    v = above[truth]
    # What positives are to negatives, negatives are to positives on reversed scores.
    w = np.asarray(_wins(_reversed(scores), ~positive), np.float64)[~truth]
    area = float(v.mean())
    if area in (0.0, 1.0):
        end = (0.5 - level / 2) ** (1 / min(v.size, w.size))
        low, high = (end, 1.0) if area else (0.0, 1 - end)
        return Interval(area, low, high, truth.size)
    variance = v.var(ddof=1) / v.size + w.var(ddof=1) / w.size
    spread = math.sqrt(variance) / (area * (1 - area))
    half = float(special.ndtri(0.5 + level / 2)) * spread
    low, high = (float(special.expit(special.logit(area) + d)) for d in (-half, half))
    return Interval(area, low, high, truth.size)


@jax.jit
def _auroc(scores: jax.Array, positive: jax.Array) -> jax.Array:
    wins = jnp.where(positive, _wins(scores, positive), 0)
    return wins.sum() / positive.sum().astype(jnp.float32)


@jax.jit
def _wins(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """Share of negatives below each example, a tie counting one half."""
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            "scores and positive must both be [examples]: "
            f"{scores.shape}, {positive.shape}"
        )
    if positive.dtype != jnp.bool_:
        raise TypeError(f"positive must be boolean, not {positive.dtype}")
    if not any(jnp.issubdtype(scores.dtype, k) for k in (jnp.integer, jnp.floating)):
        raise TypeError(f"scores must be integers or floating, not {scores.dtype}")
    scores = jnp.where(scores == 0, jnp.zeros_like(scores), scores)  # -0 is 0
    ordered, negative = jax.lax.sort_key_val(scores, (~positive).astype(jnp.int32))
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(negative)])
    below = before[jnp.searchsorted(ordered, scores, side="left")]
    up_to = before[jnp.searchsorted(ordered, scores, side="right")]
    # Halves of each are exact; their sum may pass 2^24 and is then rounded once.
    pairs = 0.5 * below.astype(jnp.float32) + 0.5 * up_to.astype(jnp.float32)
    share = pairs / before[-1].astype(jnp.float32)
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, share)


def _reversed(scores: jax.Array) -> jax.Array:
    """Scores in the opposite order; unlike ``-scores`` right for any integer."""
    return ~scores if jnp.issubdtype(scores.dtype, jnp.integer) else -scores
