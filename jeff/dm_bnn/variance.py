"""What each level of a tree of voters adds to their variance; effective voters."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["components", "effective_voters", "variance_of_mean"]


def components(values: np.ndarray, voters: Sequence[int]) -> tuple[float, ...]:
    """Variance that each level of the tree adds, by nested analysis of variance.

    Args:
      values: ``[T, ...]``, the voters' outputs in row-major order of the tree; what
        follows the first axis are quantities whose variances are averaged.
      voters: Branches at each level, at least 2 where a component is wanted. Noise
        must be independent between branches (not ``shared``).

    Returns:
      A component per level: unbiased, cut at 0. A level with one branch has none of
      its own, 0; what its weights add is then part of the nearest level above that
      has several branches, and lost if there is none.

    Raises:
      ValueError: If the shapes do not fit or no level has two branches.

    Examples:
      >>> rng = np.random.default_rng(0)
      >>> outer, inner = rng.normal(0, 2, (4000, 1)), rng.normal(0, 1, (4000, 3))
      >>> [round(v, 1) for v in components((outer + inner).reshape(-1), (4000, 3))]
      [4.0, 1.0]

    References:
      Nested (hierarchical) analysis of variance of a balanced design: Searle, Casella
      and McCulloch, "Variance components", Wiley 1992, section 3.
    """
    values = np.asarray(values, np.float64)
    total = math.prod(voters)
    if values.ndim < 1 or values.shape[0] != total:
        raise ValueError(
            f"values of shape {values.shape} are not those of {total} voters {voters}"
        )
    if max(voters, default=1) < 2:
        raise ValueError(f"no level of voters {tuple(voters)} has two branches")
    means = values.reshape(*voters, -1)
    found = [0.0] * len(voters)
    below = 0.0  # variance of a mean on this level that comes from further down
    for level in reversed(range(len(voters))):
        t = voters[level]
        if t > 1:
            spread = float(means.var(axis=level, ddof=1).mean())
            found[level] = max(0.0, spread - below)
            below = spread / t
        means = means.mean(axis=level, keepdims=True)
    return tuple(found)


def variance_of_mean(variances: Sequence[float], voters: Sequence[int]) -> float:
    """Variance of the mean over a tree of voters whose branches are independent.

    Args:
      variances: Component of each level.
      voters: Branches at each level.

    Returns:
      ``v_1 / t_1 + v_2 / (t_1 t_2) + ...``

    Examples:
      >>> round(variance_of_mean((4.0, 1.0), (10, 10)), 3)
      0.41

    References:
      Derivation: the law of total variance, level by level.
    """
    total, branches = 0.0, 1
    for v, t in zip(variances, voters, strict=True):
        branches *= t
        total += v / branches
    return total


def effective_voters(variances: Sequence[float], voters: Sequence[int]) -> float:
    """Independent voters whose mean varies as much as that of a tree.

    Args:
      variances: Component of each level.
      voters: Branches at each level.

    Returns:
      ``(v_1 + ... + v_L) / variance_of_mean``; all voters if nothing varies.

    Examples:
      >>> round(effective_voters((4.0, 1.0), (10, 10)), 1)
      12.2
    """
    spread = variance_of_mean(variances, voters)
    return sum(variances) / spread if spread > 0 else float(math.prod(voters))
