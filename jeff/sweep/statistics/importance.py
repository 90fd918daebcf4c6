"""Importance sampling over kinds of faults, such as bit positions.

Faults occur with kind `b` at probability `p_b`, but are injected with `q_b`; every
outcome `f` is weighed with the likelihood ratio ``w_b = p_b / q_b``. Then ``mean w f``
is unbiased for ``sum p_b E[f | b]`` whatever `q` is, and most precise for `q_b` in
proportion to ``p_b sqrt(E[f^2 | b])``: rare kinds that matter are injected often,
frequent ones that do not, seldom.

References:
  A. B. Owen, "Monte Carlo theory, methods and examples", 2013, chapter 9 (9.1 and 9.4
  the estimate and the best proposal, 9.11 defensive mixtures, 9.3 effective size);
  T. Hesterberg, "Weighted average importance sampling and defensive mixture
  distributions", Technometrics 37, 1995.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jeff.evaluate import Interval, student_t
from jeff.sweep import checks

__all__ = ["Weighted", "best_proposal", "draw_kinds", "weighted_estimate"]


class Weighted(NamedTuple):
    """Estimate of an importance-sampling campaign.

    Attributes:
      mean: ``mean w f``, with Student's interval over the trials, so an approximation
        that wants many trials with events. Without any event it reaches from 0 to
        ``max w (1 - (a/2)^(1/n))`` for a confidence of ``1 - a``, which holds if
        outcomes are at most 1.
      variance: Unbiased estimate of the variance of `mean.value`.
      effective_trials: ``(sum w)^2 / sum w^2``: as many trials from the target weigh as
        evenly. Far below the number of trials, the proposal misses kinds that occur
        often; for rare events judge a proposal by `variance`.
    """

    mean: Interval
    variance: float
    effective_trials: float


def best_proposal(target: Any, moments: Any, *, defensive: float = 0.1) -> np.ndarray:
    """The best probabilities to inject kinds with, mixed with the target.

    ``q = (1 - d) q* + d p`` with ``q*_b`` in proportion to ``p_b sqrt(m_b)``. With
    exact moments ``q*`` has the least variance,
    ``((sum p_b sqrt(m_b))^2 - (sum p_b mean_b)^2) / n``. The mixture bounds every
    weight by ``1 / d``, so that a kind whose pilot saw no event cannot spoil the
    estimate.

    Args:
      target: Probabilities `p` with which kinds occur, ``[B]``, of sum 1.
      moments: Guessed mean squares of the outcome by kind, ``[B]``; for events their
        rates, such as `jeff.sweep.pilot_rates`.
      defensive: Share `d` of the target in [0, 1]; 0 gives ``q*``.

    Returns:
      float64 ``[B]``, of sum 1.

    Raises:
      ValueError: If shapes differ, a number is out of range, or no kind that occurs has
        a moment above 0.

    Examples:
      >>> print(best_proposal([0.5, 0.5], [0.01, 0.81], defensive=0.0))
      [0.1 0.9]
    """
    target = checks.probabilities("target", target)
    moments = np.asarray(moments, np.float64)
    if moments.shape != target.shape:
        raise ValueError(f"moments must be {target.shape}, not {moments.shape}")
    if not (np.isfinite(moments) & (moments >= 0)).all():
        raise ValueError(f"moments must be finite and at least 0: {moments}")
    if not 0 <= defensive <= 1:
        raise ValueError(f"defensive must be in [0, 1]: {defensive=}")
    best = target * np.sqrt(moments)
    if not best.any():
        raise ValueError(f"moments are 0 wherever target is not: {moments}")
    mixed = (1 - defensive) * best / best.sum() + defensive * target
    return mixed / mixed.sum()


def draw_kinds(key: jax.Array, probabilities: Any, count: int) -> jax.Array:
    """Kinds of faults, independent draws.

    Args:
      key: A key.
      probabilities: Of every kind, ``[B]``, of sum 1; known, not traced.
      count: Number of draws.

    Returns:
      int32 ``[count]``, in ``[0, B)``. Probabilities are met to 2^-32.

    Raises:
      ValueError: If the probabilities are none.

    Examples:
      >>> kinds = draw_kinds(jax.random.key(0), [0.25, 0.0, 0.75], 1000)
      >>> print(jnp.bincount(kinds, length=3))
      [239   0 761]
    """
    p = checks.probabilities("probabilities", probabilities)
    # A uniform word is compared with the ends of the kinds, which are multiples of
    # 2^-32; the last kind that occurs takes what rounding leaves.
    ends = np.cumsum(p)[: np.flatnonzero(p)[-1]]
    ends = np.minimum(np.round(ends * 2.0**32), 2.0**32 - 1).astype(np.uint32)
    word = jax.random.bits(key, (count,), jnp.uint32)
    kinds = jnp.searchsorted(jnp.asarray(ends), word, side="right")
    return kinds.astype(jnp.int32)


def weighted_estimate(
    outcomes: Any, kinds: Any, *, target: Any, proposal: Any, level: float = 0.95
) -> Weighted:
    """The mean outcome under the target from trials under the proposal.

    Args:
      outcomes: What every trial gave, ``[n]``: 1 for an event and 0 for none, or any
        finite number. Where all are 0, the interval is for outcomes of 0 and 1: no
        other bound is known.
      kinds: Kind of fault of every trial, integers ``[n]``, drawn from `proposal`.
      target: Probabilities with which kinds occur, ``[B]``.
      proposal: Probabilities with which they were injected, ``[B]``; above 0 wherever
        `target` is.
      level: Confidence level in (0, 1).

    Returns:
      The estimate, its variance and the effective number of trials.

    Raises:
      ValueError: If shapes differ, probabilities are none, a kind that occurs is never
        injected, or one was drawn that the proposal excludes.

    Examples:
      >>> found = weighted_estimate(
      ...     [1, 0, 1, 1], [1, 0, 1, 1], target=[0.5, 0.5], proposal=[0.25, 0.75]
      ... )
      >>> round(found.mean.value, 4), round(found.effective_trials, 2)
      (0.5, 3.0)

    References:
      Without events: derivation. Faults with an event have probability ``Q`` under the
      proposal, none of n draws is one with probability ``(1 - Q)^n``, and the mean is
      at most ``max w Q``. With the target as the proposal this is the interval of
      Clopper and Pearson, Biometrika 26, 1934.
    """
    p = checks.probabilities("target", target)
    q = checks.probabilities("proposal", proposal, p.size)
    if ((p > 0) & (q == 0)).any():
        b = int(np.flatnonzero((p > 0) & (q == 0))[0])
        raise ValueError(f"proposal[{b}] is 0 but target[{b}] is {p[b]:g}: biased")
    values, kinds = np.asarray(outcomes, np.float64), np.asarray(kinds)
    if values.ndim != 1 or kinds.shape != values.shape:
        raise ValueError(
            f"outcomes and kinds must be [n]: {values.shape} and {kinds.shape}"
        )
    if not np.issubdtype(kinds.dtype, np.integer):
        raise ValueError(f"kinds must be integers, not {kinds.dtype}")
    if kinds.size and not ((kinds >= 0) & (kinds < p.size)).all():
        raise ValueError(
            f"kinds must be in [0, {p.size}): {kinds.min()}, {kinds.max()}"
        )
    if (q[kinds] == 0).any():
        raise ValueError(f"kind {kinds[q[kinds] == 0][0]} was drawn, proposal has 0")
    weights = p[kinds] / q[kinds]
    weighted = weights * values
    mean = student_t(weighted, level=level)
    if not values.any():
        most = 1 - ((1 - level) / 2) ** (1 / values.size)
        largest = float(np.divide(p, q, out=np.zeros_like(p), where=q > 0).max())
        mean = mean._replace(high=min(1.0, largest * most))
    return Weighted(
        mean=mean,
        variance=float(weighted.var(ddof=1)) / weighted.size,
        effective_trials=float(weights.sum() ** 2 / (weights**2).sum()),
    )
