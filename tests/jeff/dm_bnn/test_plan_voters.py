"""Trees of voters: components of variance, costs, the best tree by brute force."""

import math

import numpy as np
import pytest

from jeff.dm_bnn import (
    Prices,
    TreeCost,
    components,
    effective_voters,
    plan_voters,
    variance_of_mean,
)
from jeff.dm_bnn.tree_search import NEAR
from jeff.program import Count


def nested_values(rng, variances, voters, quantities):
    """Sums of independent normals, one per branch of each level."""
    values = np.zeros((*voters, quantities))
    for level, v in enumerate(variances):
        shape = [t if i <= level else 1 for i, t in enumerate(voters)]
        values = values + rng.normal(0, math.sqrt(v), (*shape, quantities))
    return values.reshape(math.prod(voters), quantities)


def test_components_are_found_again():
    rng, wanted, voters = np.random.default_rng(0), (3.0, 1.0, 2.0), (6, 4, 3)
    quantities = 20_000
    found = components(nested_values(rng, wanted, voters, quantities), voters)
    # var of a mean square of n - 1 degrees is 2 ms^2 / (n - 1); 5 standard errors
    # of the largest one, that of the first level.
    top = 3 + 1 / 4 + 2 / 12
    error = 5 * top * math.sqrt(2 / ((6 - 1) * quantities)) * 1.5
    np.testing.assert_allclose(found, wanted, atol=error)


def test_a_level_with_one_branch_adds_to_the_level_above():
    rng = np.random.default_rng(1)
    values = nested_values(rng, (3.0, 1.0), (50, 1), 4000)
    first, second = components(values, (50, 1))
    assert second == 0.0
    assert first == pytest.approx(4.0, abs=5 * 4 * math.sqrt(2 / (49 * 4000)))


def test_effective_voters_of_known_trees():
    assert effective_voters((1.0, 0.0), (10, 10)) == pytest.approx(10)
    assert effective_voters((0.0, 1.0), (10, 10)) == pytest.approx(100)
    assert effective_voters((0.0, 0.0), (3, 4)) == 12


@pytest.mark.parametrize("seed", range(60))
def test_the_plan_is_the_best_of_all_trees(seed):
    rng = np.random.default_rng(seed)
    levels = int(rng.integers(1, 4))
    cost = TreeCost(float(rng.uniform(0, 50)), tuple(rng.uniform(0.5, 40, levels)))
    variances = tuple(rng.uniform(0, 1, levels) ** 3)
    budget = cost.of((1,) * levels) * float(rng.uniform(1, 60))
    plan = plan_voters(cost, variances, budget)
    assert plan.cost == pytest.approx(cost.of(plan.voters)) and plan.cost <= budget
    assert plan.variance == pytest.approx(variance_of_mean(variances, plan.voters))
    sizes = np.indices((121, 61, 61)[:levels]) + 1
    branches = np.cumprod(sizes, 0).reshape(levels, -1)
    paid = cost.fixed + cost.branch @ branches <= budget
    best = (variances @ (1 / branches[:, paid])).min()
    assert plan.variance <= (1 + NEAR) * best


def test_the_best_tree_may_lie_on_either_side_of_the_continuous_optimum():
    plan = plan_voters(TreeCost(0.0, (1.0, 10.0, 1.0)), (1.0, 38.0, 36.0), 53.0)
    assert plan.voters == (1, 4, 3)  # 53; (4, 1, 2) costs 52 and varies by 14.25
    assert plan.variance == pytest.approx(13.5)


@pytest.mark.parametrize("seed", range(100))
def test_the_plan_is_the_best_of_few_trees(seed):
    rng = np.random.default_rng(1000 + seed)
    cost = TreeCost(0.0, tuple(rng.uniform(5, 40, 3)))
    variances = tuple(rng.uniform(0, 1, 3) ** 3)
    budget = cost.of((1, 1, 1)) * float(rng.uniform(1, 5))
    most = np.array(budget // np.array(cost.branch), int)  # each level alone
    sizes = np.indices(np.maximum(most, 1)) + 1
    branches = np.cumprod(sizes, 0).reshape(3, -1)
    paid = cost.branch @ branches <= budget
    best = (variances @ (1 / branches[:, paid])).min()
    assert plan_voters(cost, variances, budget).variance <= (1 + NEAR) * best


def test_the_search_ends_where_it_would_take_too_long():
    """The budget of a million voters: near the continuous optimum at any depth."""
    for levels in (3, 6, 12):
        rng = np.random.default_rng(levels)
        cost = TreeCost(0.0, tuple(rng.uniform(0.5, 40, levels)))
        variances = tuple(rng.uniform(0, 1, levels) ** 3)
        budget = 1e6 * sum(cost.branch)
        plan = plan_voters(cost, variances, budget)
        relaxed = variance_of_mean(variances, plan.relaxed)
        assert plan.cost <= budget and relaxed <= plan.variance < 1.03 * relaxed


def test_levels_that_cost_nothing():
    assert plan_voters(TreeCost(1.0, (0.0, 0.0)), (1.0, 1.0), 9.0).voters == (1, 1)
    assert plan_voters(TreeCost(0.0, (1.0, 0.0)), (1.0, 1.0), 9.0).voters == (9, 9)
    assert plan_voters(TreeCost(0.0, (0.0, 1.0)), (1.0, 1.0), 9.0).voters == (9, 1)


def test_no_branching_where_it_does_not_pay():
    plan = plan_voters(TreeCost(0.0, (1.0, 100.0)), (1.0, 0.01), budget=1000.0)
    assert plan.voters[1] == 1


@pytest.mark.parametrize(
    ("variances", "budget", "message"),
    [
        ((1.0,), 100.0, "variances has 1 levels, cost 2"),
        ((1.0, -1.0), 100.0, "must be at least 0"),
        ((0.0, 0.0), 100.0, "one positive"),
        ((1.0, 1.0), 2.0, "does not pay for one voter, which costs 13.0"),
    ],
)
def test_errors_of_plans(variances, budget, message):
    with pytest.raises(ValueError, match=message):
        plan_voters(TreeCost(2.0, (10.0, 1.0)), variances, budget)


def test_errors_of_components_and_prices():
    with pytest.raises(ValueError, match="not those of 6 voters"):
        components(np.zeros(5), (3, 2))
    with pytest.raises(ValueError, match="no level of voters"):
        components(np.zeros(1), (1, 1))
    with pytest.raises(ValueError, match="draw must be finite and at least 0, got -1"):
        Prices(draw=-1)
    with pytest.raises(ValueError, match="one price must be positive"):
        Prices(multiplication=0)
    total = Count(multiplications=3, additions=5, random_draws=7)
    assert Prices(multiplication=1, addition=10, draw=100).of(total) == 753


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_plans_do_not_depend_on_the_unit_of_cost(unit):
    plain = plan_voters(TreeCost(5.0, (100.0, 10.0, 1.0)), (1.0, 2.0, 4.0), 1e4)
    cost = TreeCost(5.0 * unit, (100.0 * unit, 10.0 * unit, unit))
    assert plan_voters(cost, (1.0, 2.0, 4.0), 1e4 * unit).voters == plain.voters
    assert plain.voters[1] > 1 and plain.voters[2] > 1
