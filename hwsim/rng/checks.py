"""How normal, and how independent, the numbers of a generator are.

Every check is a value, what it is for independent standard normals, and the standard
error around that; their difference in standard errors is the `score`, itself near
standard normal where the generator is good. On the host, in float64.

| check | value | expected | standard error |
| --- | --- | --- | --- |
| mean | mean | 0 | ``sqrt(1/n)`` |
| variance | mean square | 1 | ``sqrt(2/n)`` |
| skewness | mean cube | 0 | ``sqrt(15/n)`` |
| kurtosis | mean fourth power | 3 | ``sqrt(96/n)`` |
| distance | Kolmogorov and Smirnov's | ``0.8687/sqrt(n)`` | ``0.2603/sqrt(n)`` |
| chi-square | over bins of equal chance | bins - 1 | ``sqrt(2 (bins - 1))`` |
| correlation | at a lag, of x or of its square | 0 | ``sqrt(1/n)`` |
| dispersion | variance of block energies | 1 | ``sqrt((2 + 12/block) / blocks)`` |

Moments are about the known mean 0 and variance 1, not the sample's. A block's energy is
the sum of its squares over ``2 block``-square-root, chi-square by right: a generator
that conserves energy (Wallace's) has none of its variance. Discrete numbers have a true
distance from the normal distribution, which shows as soon as n is large enough; so will
their chi-square where a step is not small against a bin.

References:
  Moments: those of the powers of a standard normal (1, 3, 15, 105). Kolmogorov's
  distribution has mean ``sqrt(pi/2) ln 2`` and variance ``pi^2/12 - mean^2``
  (G. Marsaglia, W. W. Tsang, J. Wang, J. Stat. Software 8(18), 2003). Dispersion: the
  variance of a sample variance is ``(2 + kurtosis) / blocks``, and the excess kurtosis
  of chi-square is ``12 / block``.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Check",
    "autocorrelation",
    "chi_square",
    "energy_dispersion",
    "ks_distance",
    "moments",
]

_KS_MEAN = math.sqrt(math.pi / 2) * math.log(2)
_KS_SPREAD = math.sqrt(math.pi**2 / 12 - _KS_MEAN**2)


class Check(NamedTuple):
    """One measured property.

    Attributes:
      name: What was measured.
      value: The measurement.
      expected: Its value for independent standard normals.
      error: Its standard error for those.
    """

    name: str
    value: float
    expected: float
    error: float

    @property
    def score(self) -> float:
        """``(value - expected) / error``."""
        return (self.value - self.expected) / self.error


def moments(x: Any) -> tuple[Check, ...]:
    """Mean, mean square, mean cube and mean fourth power.

    Args:
      x: Numbers of any shape, at least one.

    Returns:
      Four checks.

    Raises:
      ValueError: If there are no numbers, or not all are finite.

    Examples:
      >>> [round(check.value, 2) for check in moments([-1.0, 0.0, 1.0, 2.0])]
      [0.5, 1.5, 2.0, 4.5]
    """
    x = _numbers(x, 1)
    n = x.size
    return (
        Check("mean", float(x.mean()), 0.0, math.sqrt(1 / n)),
        Check("variance", float((x**2).mean()), 1.0, math.sqrt(2 / n)),
        Check("skewness", float((x**3).mean()), 0.0, math.sqrt(15 / n)),
        Check("kurtosis", float((x**4).mean()), 3.0, math.sqrt(96 / n)),
    )


def ks_distance(x: Any) -> Check:
    """Largest distance between the share of numbers up to z and ``Phi(z)``.

    Args:
      x: Numbers of any shape, at least one; repeated ones are counted as such.

    Returns:
      The check.

    Raises:
      ValueError: If there are no numbers, or not all are finite.

    Examples:
      >>> ks_distance([0.0, 0.0]).value  # from 0 to 1 at the median
      0.5
    """
    x = _numbers(x, 1)
    values, counts = np.unique(x, return_counts=True)
    share = np.cumsum(counts) / x.size
    normal = _phi(values)
    distance = max((share - normal).max(), (normal - share + counts / x.size).max())
    root = math.sqrt(x.size)
    return Check("distance", float(distance), _KS_MEAN / root, _KS_SPREAD / root)


def chi_square(x: Any, bins: int = 64) -> Check:
    """Pearson's statistic over bins of equal probability.

    Args:
      x: Numbers of any shape, at least five per bin.
      bins: Number of bins, at least 2.

    Returns:
      The check. Its distribution is chi-square with ``bins - 1`` degrees of freedom,
      near normal from 30 on.

    Raises:
      ValueError: If there are too few numbers or bins, or not all are finite.

    Examples:
      >>> check = chi_square(np.repeat([-1.0, -0.1, 0.1, 1.0], 5), bins=4)
      >>> check.value, check.expected
      (0.0, 3.0)
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins!r}")
    x = _numbers(x, 5 * bins)
    quantile = statistics.NormalDist().inv_cdf
    edges = [quantile(i / bins) for i in range(1, bins)]
    seen = np.bincount(np.searchsorted(edges, x), minlength=bins)
    each = x.size / bins
    value = float(((seen - each) ** 2).sum() / each)
    return Check("chi-square", value, bins - 1.0, math.sqrt(2 * (bins - 1)))


def autocorrelation(x: Any, lags: Sequence[int]) -> tuple[Check, ...]:
    """``mean(x[i] x[i + lag])``, about the known mean 0, and the same of squares.

    Args:
      x: Numbers in the order in which they were drawn, ``[n]``.
      lags: Distances, each from 1 to ``n - 1``.

    Returns:
      Two checks per lag: of x, and of ``(x^2 - 1) / sqrt(2)``.

    Raises:
      ValueError: If `x` is not one-dimensional, not all are finite, or a lag is out of
        range.

    Examples:
      >>> there_and_back = np.tile([1.0, -1.0], 50)
      >>> [round(check.score, 1) for check in autocorrelation(there_and_back, [1, 2])]
      [-9.9, 0.0, 9.9, 0.0]
    """
    if np.ndim(x) != 1:
        raise ValueError(f"x must have one dimension, got {np.ndim(x)}")
    x = _numbers(x, 2)
    checks = []
    for lag in lags:
        if not 1 <= lag < x.size:
            raise ValueError(f"lags must be 1 to {x.size - 1}, got {lag!r}")
        for name, y in ((f"lag {lag}", x), (f"lag {lag} of squares", _square(x))):
            value = float(np.mean(y[lag:] * y[:-lag]))
            checks.append(Check(name, value, 0.0, 1 / math.sqrt(x.size - lag)))
    return tuple(checks)


def energy_dispersion(x: Any, block: int) -> Check:
    """Variance of the sums of squares of blocks, over ``2 block``.

    Args:
      x: Numbers in the order in which they were drawn, ``[n]``; what is left after the
        last whole block is not used.
      block: Numbers per block; the pool of Wallace's method.

    Returns:
      The check.

    Raises:
      ValueError: If there are fewer than two blocks, or not all are finite.

    Examples:
      >>> energy_dispersion(np.ones(100), 10).value  # each block has energy 10
      0.0
    """
    x = _numbers(x, 2 * block)
    blocks = x.size // block
    energies = (x[: blocks * block].reshape(blocks, block) ** 2).sum(axis=1)
    value = float(np.mean((energies - block) ** 2) / (2 * block))
    error = math.sqrt((2 + 12 / block) / blocks)
    return Check(f"dispersion of {block}", value, 1.0, error)


def _numbers(x, least):
    x = np.asarray(x, np.float64).ravel()
    if x.size < least:
        raise ValueError(f"need at least {least} numbers, got {x.size}")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite")
    return x


def _square(x):
    return (x**2 - 1) / math.sqrt(2)


def _phi(x):
    """Distribution function of the standard normal."""
    root = math.sqrt(0.5)
    return np.array([0.5 * math.erfc(-v * root) for v in x.tolist()])
