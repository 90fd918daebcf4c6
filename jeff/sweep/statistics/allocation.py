"""How many injections each stratum of a fault population gets.

Strata hold `N_h` faults with event rates `p_h`; ``W_h = N_h / sum N``. With `n_h`
injections in stratum `h` the estimate of `jeff.sweep.stratified_estimate` has variance
``sum W_h^2 p_h (1 - p_h) / n_h``: never more than a plain sample's if `n_h` goes with
`N_h`, and least if it goes with ``N_h sqrt(p_h (1 - p_h))`` (Neyman).

References:
  J. Neyman, "On the two different aspects of the representative method", JRSS 97, 1934;
  W. G. Cochran, "Sampling Techniques", Wiley 1977, chapter 5.
"""

import math
from typing import Any

import numpy as np

from jeff.sweep import checks

__all__ = ["allocate", "pilot_rates", "stratified_variance"]


def allocate(
    sizes: Any,
    total: int,
    *,
    rates: Any = None,
    floor: int = 2,
    replacement: bool = True,
) -> np.ndarray:
    """Number of injections for every stratum, integers that sum to `total`.

    Minimizes ``sum w_h^2 / n_h`` over integers, exactly: every next injection goes
    where ``w_h / sqrt(n_h (n_h + 1))`` is largest. Without rates ``w_h = N_h``:
    allocation in proportion. With rates ``w_h = N_h sqrt(p_h (1 - p_h))``, Neyman's.

    Args:
      sizes: Number of faults in every stratum, ``[H]``, at least 1.
      total: Number of injections, at least ``floor`` for each stratum.
      rates: Guessed event rates in [0, 1], ``[H]``; from a pilot take `pilot_rates`,
        which are never 0 or 1. ``None``: in proportion.
      floor: Least number of injections of a stratum, so that none starves because its
        pilot was unlucky; at least 1, and 2 for a variance estimate.
      replacement: Whether a fault may be injected twice. If not, no stratum gets more
        injections than it has faults.

    Returns:
      int64 ``[H]``.

    Raises:
      ValueError: If shapes differ, a size or rate is out of range, every rate is 0 or
        1, or `total` does not fit the floor or the sizes.

    Examples:
      >>> print(allocate([100, 300], 40))
      [10 30]
      >>> print(allocate([100, 300], 40, rates=[0.5, 0.01]))
      [25 15]

    References:
      T. Wright, "Exact optimal sample allocation: more efficient than Neyman",
      Statistics & Probability Letters 129, 2017.
    """
    sizes = checks.whole("sizes", sizes, least=1)
    weights = sizes
    if rates is not None:
        rates = checks.rates("rates", rates, sizes.size)
        weights = sizes * np.sqrt(rates * (1 - rates))
        if not weights.any():
            raise ValueError(f"rates are all 0 or 1; see pilot_rates: {rates}")
        # Strata of rate 0 or 1 come last, but do come when the others are full.
        weights = np.maximum(weights, 1e-12 * weights.max())
    if floor < 1:
        raise ValueError(f"floor must be at least 1: {floor=}")
    most = np.full(sizes.shape, total) if replacement else sizes.astype(np.int64)
    least = np.minimum(floor, most)
    if not least.sum() <= total <= most.sum():
        raise ValueError(
            f"total={total} injections do not fit {sizes.size} strata of at least "
            f"{floor} each"
            + ("" if replacement else f" and {most.sum()} faults in all")
        )

    def counts(log_price):  # how many are worth more than a price, per stratum
        ratio = np.exp(2 * (np.log(weights) - log_price))
        # The largest n with (n - 1) n < ratio; beyond 2^52 it only has to be large.
        n = np.ceil((np.sqrt(1 + 4 * np.minimum(ratio, 1e30)) - 1) / 2)
        return np.clip(n, least, most).astype(np.int64)

    low = math.log(weights.min()) - math.log(total) - 2  # every count above total
    high = math.log(weights.max()) + 2  # every count at the floor
    while high - low > 1e-13 * max(1.0, abs(high)):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if counts(middle).sum() <= total else (middle, high)
    chosen = counts(high)
    while chosen.sum() < total:  # ties at the price, at most a few per stratum
        worth = np.where(chosen < most, weights / np.sqrt(chosen * (chosen + 1.0)), -1)
        chosen[np.argmax(worth)] += 1
    return chosen


def pilot_rates(events: Any, trials: Any) -> np.ndarray:
    """Event rates guessed from a pilot, never 0 or 1: ``(k + 1) / (n + 2)``.

    Args:
      events: Injections with an event, integers ``[H]``.
      trials: Injections, integers ``[H]``; may be 0, which guesses 1/2.

    Returns:
      float64 ``[H]``.

    Raises:
      ValueError: If shapes differ or not ``0 <= events <= trials``.

    Examples:
      >>> print(pilot_rates([0, 3, 0], [8, 8, 0]))
      [0.1 0.4 0.5]
    """
    trials = checks.whole("trials", trials)
    events = checks.whole("events", events, most=trials, size=trials.size)
    return (events + 1) / (trials + 2)


def stratified_variance(
    sizes: Any, rates: Any, trials: Any, *, replacement: bool = True
) -> float:
    """Variance that an allocation will have, for known rates.

    ``sum W_h^2 p_h (1 - p_h) / n_h``, each term times ``(N_h - n_h) / (N_h - 1)`` if no
    fault is injected twice.

    Args:
      sizes: Number of faults in every stratum, ``[H]``.
      rates: Event rates in [0, 1], ``[H]``.
      trials: Injections of every stratum, ``[H]``, at least 1.
      replacement: Whether a fault may be injected twice.

    Returns:
      The variance.

    Raises:
      ValueError: If shapes differ or a number is out of range.

    Examples:
      >>> sizes, rates = [100, 300], [0.5, 0.01]
      >>> for n in ([10, 30], [25, 15]):
      ...     print(round(stratified_variance(sizes, rates, n), 6))
      0.001748
      0.000996
    """
    sizes = checks.whole("sizes", sizes, least=1)
    rates = checks.rates("rates", rates, sizes.size)
    most = None if replacement else sizes
    trials = checks.whole("trials", trials, least=1, most=most, size=sizes.size)
    share = sizes / sizes.sum()
    terms = share**2 * rates * (1 - rates) / trials
    if not replacement:
        terms = terms * (sizes - trials) / np.maximum(sizes - 1, 1)
    return float(terms.sum())
