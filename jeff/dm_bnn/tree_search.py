"""Whole numbers of branches with the least variance of the mean: branch and bound."""

import math
from collections.abc import Sequence

from jeff.dm_bnn.cost import TreeCost
from jeff.dm_bnn.variance import variance_of_mean

__all__ = ["NEAR", "merged", "search", "worth"]

NEAR = 1e-3
"""Trees that may be better by less than this share are not looked for."""
_STEPS = 20_000  # numbers of branches of some level that are looked at


def worth(prices: Sequence[float], variances: Sequence[float], group) -> float:
    """What branches of some levels should be proportional to, in real numbers.

    Args:
      prices: Of a branch of each level.
      variances: Component of each level.
      group: Levels with as many branches in all, one after the other.

    Returns:
      The square root of what they add over what they cost.
    """
    spread = sum(variances[i] for i in group)
    price = sum(prices[i] for i in group)
    return math.sqrt(spread / price) if price > 0 else math.inf if spread else 0.0


def merged(prices: Sequence[float], variances: Sequence[float]) -> list[list[int]]:
    """Levels in groups: in the continuous optimum only the first of each branches.

    Args:
      prices: Of a branch of each level.
      variances: Component of each level.

    Returns:
      The groups, of rising worth.

    Examples:
      >>> merged((1.0, 100.0, 1.0), (1.0, 1.0, 1.0))
      [[0, 1], [2]]
    """
    groups: list[list[int]] = []
    for level in range(len(variances)):
        groups.append([level])
        while len(groups) > 1 and worth(prices, variances, groups[-1]) <= worth(
            prices, variances, groups[-2]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def search(
    cost: TreeCost,
    variances: Sequence[float],
    budget: float,
    start: tuple[int, ...],
    free: Sequence[int],
) -> tuple[int, ...]:
    """A tree that varies less than a given one, as little as the budget allows.

    Numbers of branches are chosen level by level. Trees that begin in one way vary at
    least by what was chosen and, for ``C`` left to spend, ``(sum_g sqrt(v_g c_g))^2 /
    C``: the continuous optimum of the deeper levels, in groups g.

    Args:
      cost: Of trees.
      variances: Component of each level.
      budget: In the unit of `cost`.
      start: A tree that the budget pays for.
      free: By level the branches to take where they cost nothing.

    Returns:
      A tree whose variance is at most by `NEAR` above the least, or after 20,000 steps
      the best one found.

    Examples:
      >>> cost = TreeCost(0.0, (5.0, 1.0))
      >>> search(cost, (1.0, 1.0), 21.0, (3, 2), (1, 1))
      (3, 2)
      >>> search(cost, (1.0, 1.0), 24.0, (3, 2), (1, 1))
      (3, 3)

    References:
      A. H. Land and A. G. Doig, "An automatic method of solving discrete programming
      problems", Econometrica 28, 1960. The bound: Cauchy and Schwarz.
    """
    deepest = len(variances)
    prices = [sum(cost.branch[i:]) for i in range(deepest)]  # a branch and one below
    suffixes = [(cost.branch[i:], variances[i:]) for i in range(deepest + 1)]
    weights = [_weight(*suffix) for suffix in suffixes]
    least, best, steps = variance_of_mean(variances, start), start, 0

    def visit(tree, branches, spread, left):
        nonlocal least, best, steps
        level = len(tree)
        if level == deepest:
            if cost.of(tree) <= budget:
                least, best = spread, tree
            return
        once, paid = branches * cost.branch[level], branches * prices[level]
        most = math.floor(left / paid) if paid > 0 else free[level]
        root = math.sqrt(variances[level] / branches)
        below = weights[level + 1]
        flat = math.sqrt(once) * below + once * root  # where the bound is least
        middle = max(1, min(most, math.floor(left * root / flat) if flat > 0 else most))
        # The bound falls to its least between these two, and rises from there.
        for sizes in (range(middle + 1, most + 1), range(middle, 0, -1)):
            for size in sizes:
                steps += 1
                varies = spread + variances[level] / (branches * size)
                rest = left - once * size
                bound = varies + (below**2 / rest if rest > 0 else 0.0)
                if steps > _STEPS or bound >= least * (1 - NEAR):
                    break
                visit((*tree, size), branches * size, varies, rest)

    visit((), 1, 0.0, budget - cost.fixed)
    return best


def _weight(prices: Sequence[float], variances: Sequence[float]) -> float:
    """``sum_g sqrt(v_g c_g)`` over the groups of some levels."""
    return sum(
        math.sqrt(sum(prices[i] for i in g) * sum(variances[i] for i in g))
        for g in merged(prices, variances)
    )
