"""The tree of voters that tells most for a budget."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jeff.dm_bnn.cost import TreeCost
from jeff.dm_bnn.tree_search import merged, search, worth
from jeff.dm_bnn.variance import effective_voters, variance_of_mean

__all__ = ["VoterPlan", "plan_voters"]

_TREES = 256  # of whole numbers near the optimum: all of up to nine levels


class VoterPlan(NamedTuple):
    """A tree of voters.

    Attributes:
      voters: Branches at each level.
      cost: Of the tree.
      effective_voters: Independent voters that are worth as much.
      variance: Of the mean over the voters.
      cost_per_effective_voter: What to compare trees by.
      relaxed: The optimum for real numbers of branches, which `voters` is near.
    """

    voters: tuple[int, ...]
    cost: float
    effective_voters: float
    variance: float
    cost_per_effective_voter: float
    relaxed: tuple[float, ...]


def plan_voters(cost: TreeCost, variances: Sequence[float], budget: float) -> VoterPlan:
    """The tree with the least variance of the mean that a budget pays for.

    Args:
      cost: Of trees, from `tree_cost`.
      variances: Component of each level, from `components` of a pilot.
      budget: In the unit of `cost`.

    Returns:
      A tree whose variance is at most 0.1 % above the least; or the best one that was
      found in 20,000 steps, where so many do not make that certain.

    Raises:
      ValueError: If lengths differ, a component is negative, nothing varies, or the
        budget does not pay for one voter.

    Examples:
      >>> plan = plan_voters(TreeCost(0.0, (100.0, 1.0)), (1.0, 4.0), budget=10_000.0)
      >>> plan.voters, round(plan.effective_voters), round(plan.relaxed[1])
      ((84, 19), 347, 20)

    References:
      Derivation: the least ``sum_l v_l / R_l`` with ``sum_l c_l R_l`` given, R_l the
      product of the first l numbers of branches, has ``R_l`` in proportion to
      ``sqrt(v_l / c_l)``, so that ``t_l = sqrt((v_l / c_l) / (v_(l-1) / c_(l-1)))``.
      Cochran, "Sampling techniques", Wiley 1977, section 10.6, has it for two levels.
      Whole numbers: by branch and bound, from the best rounding on.
    """
    variances = tuple(float(v) for v in variances)
    if len(variances) != len(cost.branch) or not variances:
        raise ValueError(
            f"variances has {len(variances)} levels, cost {len(cost.branch)}"
        )
    if min(variances) < 0 or not 0 < sum(variances) < math.inf:
        raise ValueError(f"variances must be at least 0, one positive: {variances}")
    if budget < cost.of((1,) * len(variances)):
        raise ValueError(
            f"budget {budget} does not pay for one voter, which costs "
            f"{cost.of((1,) * len(variances))}"
        )
    relaxed = _relaxed(cost, variances, budget)
    trees = [(1,) * (len(variances) - 1), *_rounded(relaxed[1:])]
    whole = [tree for rest in trees if (tree := _first(cost, rest, budget))]
    start = min(whole, key=lambda t: (variance_of_mean(variances, t), cost.of(t)))
    free = (1, *(math.ceil(size) for size in relaxed[1:]))
    best = search(cost, variances, budget, start, free)
    effective = effective_voters(variances, best)
    return VoterPlan(
        voters=best,
        cost=cost.of(best),
        effective_voters=effective,
        variance=variance_of_mean(variances, best),
        cost_per_effective_voter=cost.of(best) / effective,
        relaxed=relaxed,
    )


def _relaxed(cost, variances, budget) -> tuple[float, ...]:
    """Real numbers of branches; a level that would have fewer than one is merged."""
    groups = merged(cost.branch, variances)
    sizes = [1.0] * len(variances)
    # More branches than this the budget never pays for, in whatever unit it is.
    most = budget / min([price for price in cost.branch if price > 0], default=budget)
    for before, group in zip(groups, groups[1:], strict=False):
        one, other = (worth(cost.branch, variances, g) for g in (before, group))
        sizes[group[0]] = min(other / one if one > 0 else most, most)
    shares, branches = 0.0, 1.0
    for price, size in zip(cost.branch[1:], sizes[1:], strict=True):
        branches *= size
        shares += price * branches
    sizes[0] = max(1.0, (budget - cost.fixed) / max(cost.branch[0] + shares, 1e-300))
    return tuple(sizes)


def _rounded(relaxed: Sequence[float]) -> list[tuple[int, ...]]:
    """Whole numbers of branches: all roundings, or if there are many the nearest.

    What a level costs and adds depends on the product of the branches down to it, so
    near are those whose products are, level by level.
    """
    found: list[tuple[float, int, tuple[int, ...]]] = [(0.0, 1, ())]
    wanted = 1.0
    for t in relaxed:
        wanted *= t
        sizes = sorted({max(1, math.floor(t)), max(1, math.ceil(t))})
        found = [
            (
                off + math.log(product * size / wanted) ** 2,
                product * size,
                (*tree, size),
            )
            for off, product, tree in found
            for size in sizes
        ]
        found = sorted(found)[:_TREES]
    return [tree for _, _, tree in found]


def _first(cost, rest, budget) -> tuple[int, ...] | None:
    """A tree whose first level takes the rest of the budget; ``None`` if none fits."""
    once = cost.of((1, *rest)) - cost.fixed
    size = math.floor((budget - cost.fixed) / once) if once > 0 else 1
    return (size, *rest) if size >= 1 else None
