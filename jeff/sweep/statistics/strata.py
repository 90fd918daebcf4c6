"""Stratified campaigns: faults split by layer and bit, each part sampled by itself.

`jeff.sweep.allocate` says how many injections each stratum gets; here is what follows
from their outcomes.

References:
  W. G. Cochran, "Sampling Techniques", Wiley 1977, sections 5.3 and 5.4; effective
  sizes in intervals for proportions: E. L. Korn and B. I. Graubard, "Confidence
  intervals for proportions with small expected number of positive counts estimated
  from survey data", Survey Methodology 24, 1998.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jeff.evaluate import Interval, proportion, wilson
from jeff.sweep import checks

__all__ = ["Stratified", "Stratum", "stratified_estimate"]


class Stratum(NamedTuple):
    """One row of a stratified campaign's table.

    Attributes:
      name: What it holds, such as ``"layers.0.kernel bit 7"``.
      size: Number of faults in it.
      events: Injections with an event.
      rate: Event rate, with its interval and the number of injections.
      share: Its part ``W_h k_h / n_h`` of the estimate; the parts sum to it.
    """

    name: str
    size: int
    events: int
    rate: Interval
    share: float


class Stratified(NamedTuple):
    """Estimate of a stratified campaign.

    Attributes:
      rate: Event rate over all faults, with its interval and the number of injections.
      variance: Unbiased estimate of the variance of `rate.value`.
      strata: The table, in the order given.
    """

    rate: Interval
    variance: float
    strata: tuple[Stratum, ...]


def stratified_estimate(
    sizes: Any,
    events: Any,
    trials: Any,
    *,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    replacement: bool = True,
) -> Stratified:
    """Event rate over all faults from the events in every stratum.

    The estimate ``p = sum W_h k_h / n_h`` and its variance, ``W_h^2 r_h (1 - r_h) /
    (n_h - 1)`` summed with ``r_h = k_h / n_h`` (times ``1 - n_h / N_h`` if no fault is
    injected twice), are unbiased.

    That variance is 0 in a stratum without events, though their rate is not. The
    interval therefore adds to each stratum one injection of the overall rate, ``s_h =
    (k_h + p') / (n_h + 1)`` with ``p' = (n p + 1) / (n + 2)``, and is Wilson's for `p`
    at the effective number of injections ``s (1 - s) / V``, where ``s = sum W_h s_h``
    and ``V = sum W_h^2 s_h (1 - s_h) / n_h``. A large stratum with few injections makes
    it wide, as it should.

    Args:
      sizes: Number of faults in every stratum, ``[H]``.
      events: Injections with an event, ``[H]``.
      trials: Injections, ``[H]``, at least 2 each (or all the faults there are, without
        replacement).
      names: Names of the strata for the table; ``None``: their numbers.
      level: Confidence level in (0, 1).
      replacement: Whether faults were drawn with replacement.

    Returns:
      The estimate, its variance and the per-stratum table.

    Raises:
      ValueError: If shapes differ or a number is out of range.

    Examples:
      >>> found = stratified_estimate([100, 300], [12, 1], [25, 15], names=["w", "b"])
      >>> print(f"{found.rate.value:.3f} [{found.rate.low:.3f}, {found.rate.high:.3f}]")
      0.170 [0.087, 0.305]
      >>> [(s.name, s.events, s.rate.trials, round(s.share, 2)) for s in found.strata]
      [('w', 12, 25, 0.12), ('b', 1, 15, 0.05)]
    """
    sizes = checks.whole("sizes", sizes, least=1)
    most = None if replacement else sizes
    trials = checks.whole("trials", trials, least=1, most=most, size=sizes.size)
    events = checks.whole("events", events, most=trials, size=sizes.size)
    names = [str(h) for h in range(sizes.size)] if names is None else list(names)
    if len(names) != sizes.size:
        raise ValueError(f"names must be {sizes.size}, got {len(names)}")
    complete = np.zeros(sizes.shape, bool) if replacement else trials == sizes
    if ((trials < 2) & ~complete).any():
        h = int(np.flatnonzero((trials < 2) & ~complete)[0])
        raise ValueError(
            f"trials[{h}] must be at least 2 for a variance: {trials[h]:g}"
        )
    share = sizes / sizes.sum()
    rates = events / trials
    finite = np.ones(sizes.shape) if replacement else 1 - trials / sizes
    variance = share**2 * finite * rates * (1 - rates) / np.maximum(trials - 1, 1)
    value = float((share * rates).sum())
    total = int(trials.sum())
    overall = (total * value + 1) / (total + 2)
    near = (events + overall) / (trials + 1)
    careful = float((share**2 * finite * near * (1 - near) / trials).sum())
    mean = float((share * near).sum())
    low = high = value  # of a population seen whole
    if careful > 0:
        effective = mean * (1 - mean) / careful
        _, low, high, _ = wilson(value * effective, effective, level=level)
    table = (
        Stratum(name, int(size), int(k), proportion(int(k), int(n), level=level), part)
        for name, size, k, n, part in zip(
            names, sizes, events, trials, (share * rates).tolist(), strict=True
        )
    )
    rate = Interval(value, low, high, total)
    return Stratified(rate, float(variance.sum()), tuple(table))
