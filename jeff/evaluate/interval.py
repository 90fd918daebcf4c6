"""Confidence intervals for what is measured a finite number of times.

Plain Python floats on the host: an interval is computed once, after the arrays.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import special

__all__ = [
    "Interval",
    "clopper_pearson",
    "empirical_bernstein",
    "proportion",
    "student_t",
    "wilson",
]

_FEW = (
    10  # events below which the normal approximation behind Wilson's interval is poor
)


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


def wilson(successes: float, trials: float, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion.

    With ``p = successes / trials`` and ``z`` the normal quantile of `level`, the ends
    solve ``|p - q| = z sqrt(q (1 - q) / trials)`` for ``q``. Unlike the textbook
    ``p ± z sqrt(p (1 - p) / trials)`` it stays inside [0, 1] and does not collapse to
    a point when every trial succeeds.

    Args:
      successes: Number of successes, in ``[0, trials]``.
      trials: Number of independent trials, at least 1. Both may be fractions, such as
        effective numbers.
      level: Confidence level in (0, 1).

    Returns:
      The proportion and its interval; `trials` is rounded down.

    Raises:
      ValueError: If a count or the level is out of range.

    Examples:
      >>> [round(x, 4) for x in wilson(8, 10)[:3]]
      [0.8, 0.4902, 0.9433]

    References:
      E. B. Wilson, "Probable inference, the law of succession, and statistical
      inference", JASA 22, 1927.
    """
    _check_counts(successes, trials)
    z = float(special.ndtri(0.5 + _checked(level) / 2))
    p = successes / trials
    shrink = 1 + z * z / trials
    center = (p + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    # The ends are exactly 0 and 1 at the two edges; rounding would miss them by an ulp.
    low = 0.0 if successes == 0 else center - half
    high = 1.0 if successes == trials else center + half
    return Interval(p, low, high, int(trials))


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval for a proportion.

    With ``a = 1 - level``, `k` successes of `n`, the ends are the proportions at which
    `k` or more, and `k` or fewer, successes have probability ``a / 2``: the quantiles
    ``B(a/2; k, n - k + 1)`` and ``B(1 - a/2; k + 1, n - k)`` of the beta distribution.
    It covers with at least `level` for every proportion and number of trials, at the
    price of being wider than `wilson`.

    Args:
      successes: Number of successes, in ``[0, trials]``.
      trials: Number of independent trials, at least 1.
      level: Confidence level in (0, 1).

    Returns:
      The proportion and its interval.

    Raises:
      ValueError: If a count or the level is out of range.

    Examples:
      >>> [round(x, 4) for x in clopper_pearson(8, 10)[:3]]
      [0.8, 0.4439, 0.9748]

    References:
      C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits
      illustrated in the case of the binomial", Biometrika 26, 1934.
    """
    _check_counts(successes, trials)
    k, n, tail = successes, trials, (1 - _checked(level)) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betainccinv(k + 1, n - k, tail))
    return Interval(k / n, low, high, n)


def proportion(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """The interval to report for a proportion: Wilson's, exact where events are few.

    `clopper_pearson` if there are fewer than 10 successes or fewer than 10 failures,
    where the normal approximation is poor; else `wilson`.

    Args:
      successes: Number of successes, in ``[0, trials]``.
      trials: Number of independent trials, at least 1.
      level: Confidence level in (0, 1).

    Returns:
      The proportion and its interval.

    Raises:
      ValueError: If a count or the level is out of range.

    Examples:
      >>> proportion(9, 100) == clopper_pearson(9, 100)
      True
      >>> proportion(10, 100) == wilson(10, 100)
      True
    """
    _check_counts(successes, trials)
    few = min(successes, trials - successes) < _FEW
    return (clopper_pearson if few else wilson)(successes, trials, level=level)


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
    values = _finite(samples)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    half = float(special.stdtrit(values.size - 1, 0.5 + _checked(level) / 2)) * error
    return Interval(mean, mean - half, mean + half, int(values.size))


def empirical_bernstein(samples: Iterable[float], *, level: float = 0.95) -> Interval:
    """An interval for the mean of independent samples in [0, 1], without approximation.

    With ``a = 1 - level``, the variance `v` of the `n` samples and ``L = ln(4 / a)``,
    the mean is within ``sqrt(2 v L / n) + 7 L / (3 (n - 1))`` of the average with
    probability at least `level`, whatever the distribution. `student_t` is several
    times narrower where its assumption holds; this needs none.

    Args:
      samples: At least two numbers in [0, 1], such as accuracies of faulty devices.
      level: Confidence level in (0, 1).

    Returns:
      The mean and its interval, cut at 0 and 1.

    Raises:
      ValueError: If there are fewer than two samples, one is outside [0, 1], or the
        level is out of range.

    Examples:
      >>> [round(x, 3) for x in empirical_bernstein([0.9, 0.8] * 500)[:3]]
      [0.85, 0.835, 0.865]

    References:
      A. Maurer and M. Pontil, "Empirical Bernstein bounds and sample variance
      penalization", COLT 2009, theorem 4, at ``a / 2`` on either side.
    """
    values = _finite(samples)
    outside = np.flatnonzero((values < 0) | (values > 1))
    if outside.size:
        bad = int(outside[0])
        raise ValueError(f"samples[{bad}] is outside [0, 1]: {values[bad]}")
    log = math.log(4 / (1 - _checked(level)))
    n, mean = values.size, float(values.mean())
    spread = math.sqrt(2 * float(values.var(ddof=1)) * log / n)
    half = spread + 7 * log / (3 * (n - 1))
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), int(n))


def _check_counts(successes: float, trials: float) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"need 0 <= successes <= trials and trials >= 1: {successes=}, {trials=}"
        )


def _finite(samples: Iterable[float]) -> np.ndarray:
    values = np.asarray(list(samples), np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(
            f"samples must be at least two numbers, not of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"samples[{bad}] is not finite: {values[bad]}")
    return values


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1): {level=}")
    return level
