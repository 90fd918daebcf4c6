import itertools
import math

import numpy as np
import pytest

from jeff.evaluate import proportion, wilson
from jeff.sweep import allocate, stratified_estimate, stratified_variance

SIZES, RATES = [4, 10, 6], [0.5, 0.1, 1 / 3]
TRUTH = (2 + 1 + 2) / 20


def outcomes(trials, replacement):
    """Every vector of events with its probability."""
    for events in itertools.product(*(range(n + 1) for n in trials)):
        mass = 1.0
        for k, n, size, p in zip(events, trials, SIZES, RATES, strict=True):
            if replacement:
                mass *= math.comb(n, k) * p**k * (1 - p) ** (n - k)
            else:
                bad = round(size * p)
                ways = math.comb(bad, k) * math.comb(size - bad, n - k)
                mass *= ways / math.comb(size, n)
        if mass:
            yield events, mass


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("trials", [(2, 3, 2), (4, 2, 3)])
def test_estimate_and_variance_are_unbiased_over_all_outcomes(trials, replacement):
    mean = square = estimated = 0.0
    for events, mass in outcomes(trials, replacement):
        found = stratified_estimate(SIZES, events, trials, replacement=replacement)
        mean += mass * found.rate.value
        square += mass * found.rate.value**2
        estimated += mass * found.variance
    variance = stratified_variance(SIZES, RATES, trials, replacement=replacement)
    assert mean == pytest.approx(TRUTH, rel=1e-12)
    assert square - mean**2 == pytest.approx(variance, rel=1e-9)
    assert estimated == pytest.approx(variance, rel=1e-9)


def test_table():
    found = stratified_estimate([1, 3], [2, 0], [4, 6], names=["w bit 7", "w bit 0"])
    assert found.rate.value == 0.25 * 0.5 and found.rate.trials == 10
    first, second = found.strata
    assert first[:3] == ("w bit 7", 1, 2) and second[:3] == ("w bit 0", 3, 0)
    assert first.rate == proportion(2, 4) and second.rate == proportion(0, 6)
    assert sum(s.share for s in found.strata) == pytest.approx(found.rate.value)


def test_interval_covers_for_rare_events_in_many_strata():
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 1000, 40)
    rates = np.where(np.arange(40) % 8 == 7, 0.2, 0.002)
    truth = (sizes * rates).sum() / sizes.sum()
    trials = allocate(sizes, 1000, rates=rates)
    covered = width = 0.0
    for events in rng.binomial(trials, rates, (400, 40)):
        found = stratified_estimate(sizes, events, trials).rate
        covered += found.low <= truth <= found.high
        width += (found.high - found.low) / 400
    # 95 % of 400 campaigns, less three standard deviations (of 4.4).
    assert covered >= 367
    # Still far narrower than a plain sample of the same size.
    assert width < 0.75 * 2 * 1.96 * (truth * (1 - truth) / 1000) ** 0.5


def test_interval_is_wilsons_at_the_effective_size():
    # One stratum of n: p' = (k + 1) / (n + 2), s = (k + p') / (n + 1), effective n.
    found = stratified_estimate([50], [3], [20]).rate
    assert found == pytest.approx(wilson(3, 20))
    # Two equal strata of 4, no events: p' = 1/10, s = 1/50, V = s (1 - s) / 8.
    assert stratified_estimate([5, 5], [0, 0], [4, 4]).rate == pytest.approx(
        wilson(0, 8)
    )
    every = stratified_estimate([1, 1], [2, 2], [2, 2]).rate
    assert every.value == every.high == 1.0 and every.low < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([2, 2], [0, 1], [1, 2]), r"trials\[0\] must be at least 2"),
        (([2, 2], [0, 3], [2, 2]), r"events\[1\]"),
        (([2, 2], [0], [2, 2]), r"events must be \[2\]"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        stratified_estimate(*arguments)
    with pytest.raises(ValueError, match="names must be 2"):
        stratified_estimate([2, 2], [0, 0], [2, 2], names=["a"])
    with pytest.raises(ValueError, match="level=1"):
        stratified_estimate([2, 2], [0, 0], [2, 2], level=1)


def test_a_stratum_seen_whole_needs_no_second_injection():
    found = stratified_estimate([1, 5], [1, 0], [1, 5], replacement=False)
    assert found.rate[:3] == pytest.approx((1 / 6, 1 / 6, 1 / 6))
    assert found.variance == 0.0
