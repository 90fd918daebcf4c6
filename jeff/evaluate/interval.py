"""Confidence intervals for what is measured a finite number of times.

Plain Python floats on the host: an interval is computed once, after the arrays.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import special

__all__ = ["Interval", "student_t", "wilson"]


class Interval(NamedTuple):
    """A point estimate and the ends of its confidence interval.

    Attributes:
      value: The estimate.
      low: Lower end.
      high: Upper end.
      trials: Number of independent observations.

    Examples:
      >>> accuracy = wilson(95, 100)
      >>> f"{accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"
      '0.95 [0.89, 0.98]'
    """

    value: float
    low: float
    high: float
    trials: int


def wilson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion.

    With ``p = successes / trials`` and ``z`` the normal quantile of `level`, the ends
    solve ``|p - q| = z sqrt(q (1 - q) / trials)`` for ``q``. Unlike the textbook
    ``p ± z sqrt(p (1 - p) / trials)`` it stays inside [0, 1] and does not collapse to
    a point when every trial succeeds.

    Args:
      successes: Number of successes, in ``[0, trials]``.
      trials: Number of independent trials, at least 1.
      level: Confidence level in (0, 1).

    Returns:
      The proportion and its interval.

    Raises:
      ValueError: If a count or the level is out of range.

    Examples:
      >>> [round(x, 4) for x in wilson(8, 10)[:3]]
      [0.8, 0.4902, 0.9433]

    References:
      E. B. Wilson, "Probable inference, the law of succession, and statistical
      inference", JASA 22, 1927.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"need 0 <= successes <= trials and trials >= 1: {successes=}, {trials=}"
        )
    z = float(special.ndtri(0.5 + _checked(level) / 2))
    p = successes / trials
    shrink = 1 + z * z / trials
    center = (p + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    # The ends are exactly 0 and 1 at the two edges; rounding would miss them by an ulp.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == trials else center + half
    return Interval(p, low, high, trials)


def student_t(samples: Iterable[float], *, level: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent, roughly normal samples.

    For a paired comparison give the differences; the interval then says whether one
    side is better over the same seeds.

    Args:
      samples: At least two finite numbers, such as one result per seed.
      level: Confidence level in (0, 1).

    Returns:
      The mean and its interval.

    Raises:
      ValueError: If there are fewer than two samples, one is not finite, or the level
        is out of range.

    Examples:
      >>> [round(x, 3) for x in student_t([1.0, 2.0, 3.0])[:3]]
      [2.0, -0.484, 4.484]

    References:
      Student, "The probable error of a mean", Biometrika 6, 1908.
    """
    values = np.asarray(list(samples), np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"samples must be at least two numbers, not of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"samples[{bad}] is not finite: {values[bad]}")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    half = float(special.stdtrit(values.size - 1, 0.5 + _checked(level) / 2)) * error
    return Interval(mean, mean - half, mean + half, int(values.size))


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1): {level=}")
    return level
