import itertools

import numpy as np
import pytest

from jeff.sweep import allocate, pilot_rates, stratified_variance

SIZES = np.array([100, 300, 50, 550])
RATES = np.array([0.5, 0.01, 0.3, 0.002])


def test_integers_sum_to_the_total_and_keep_the_floor():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 10_000, 40)
        rates = rng.random(40) ** 4
        total = int(rng.integers(80, 100_000))
        for known in (None, rates):
            found = allocate(sizes, total, rates=known)
            assert found.dtype == np.int64
            assert found.sum() == total and found.min() >= 2


def test_ideal_shares_when_they_are_whole():
    assert allocate([1, 2, 3, 4], 1000).tolist() == [100, 200, 300, 400]
    # N sqrt(p (1 - p)): 100 * 0.5, 200 * 0.3, 300 * 0.3.
    found = allocate([100, 200, 300], 400, rates=[0.5, 0.1, 0.9])
    assert found.tolist() == [100, 120, 180]


@pytest.mark.parametrize("total", [8, 13, 20])
@pytest.mark.parametrize("rates", [None, RATES])
def test_no_other_allocation_is_better(total, rates):
    weights = SIZES if rates is None else SIZES * np.sqrt(rates * (1 - rates))

    def cost(counts):
        return float((weights**2 / np.asarray(counts)).sum())

    others = itertools.product(range(2, total + 1), repeat=4)
    best = min(cost(n) for n in others if sum(n) == total)
    assert cost(allocate(SIZES, total, rates=rates)) == pytest.approx(best, rel=1e-12)


def test_neyman_beats_proportional_beats_simple():
    total = 1000
    p = (SIZES * RATES).sum() / SIZES.sum()
    simple = p * (1 - p) / total
    proportional = stratified_variance(SIZES, RATES, allocate(SIZES, total))
    neyman = stratified_variance(SIZES, RATES, allocate(SIZES, total, rates=RATES))
    # Proportional shares are whole here, so the differences are the textbook's exactly:
    # between strata sum W (p_h - p)^2 / n, and within sum W (s_h - mean s)^2 / n. Only
    # the second is off, by rounding to whole injections: a relative 1e-3.
    share, spread = SIZES / SIZES.sum(), np.sqrt(RATES * (1 - RATES))
    between = (share * (RATES - p) ** 2).sum() / total
    within = (share * (spread - (share * spread).sum()) ** 2).sum() / total
    assert simple - proportional == pytest.approx(between, rel=1e-9)
    assert proportional - neyman == pytest.approx(within, rel=1e-3)
    assert neyman < proportional < simple


def test_without_replacement_no_stratum_overflows():
    sizes = [5, 1000, 3]
    found = allocate(sizes, 100, rates=[0.5, 0.001, 0.5], replacement=False)
    assert found.tolist() == [5, 92, 3]
    # Strata that cannot matter are filled last, but are filled.
    found = allocate([5, 10], 14, rates=[0.5, 0.0], replacement=False)
    assert found.tolist() == [5, 9]
    # Having seen every fault, nothing is uncertain.
    assert stratified_variance([5, 3], [0.4, 0.5], [5, 3], replacement=False) == 0.0


def test_a_million_injections_over_many_strata():
    sizes = np.random.default_rng(3).integers(1, 10**6, 2000)
    found = allocate(sizes, 10**6)
    ideal = sizes / sizes.sum() * 10**6
    assert found.sum() == 10**6 and np.abs(found - np.maximum(ideal, 2)).max() <= 2


def test_pilot_rates_are_never_certain():
    assert pilot_rates([0, 4], [4, 4]).tolist() == [1 / 6, 5 / 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate([1, 0], 10), r"sizes\[1\] must be an integer >= 1: 0"),
        (lambda: allocate([1, 2], 3), "total=3 injections do not fit 2 strata"),
        (lambda: allocate([1, 2], 4, replacement=False), "and 3 faults in all"),
        (lambda: allocate([1, 2], 9, rates=[0.1]), r"rates must be \[2\]"),
        (lambda: allocate([1, 2], 9, rates=[0.1, 1.1]), r"rates\[1\] must be in \[0"),
        (lambda: allocate([1, 2], 9, rates=[0.0, 1.0]), "see pilot_rates"),
        (lambda: allocate([1, 2], 9, floor=0), "floor=0"),
        (lambda: pilot_rates([3], [2]), r"events\[0\] must be an integer in \[0, 2\]"),
        (
            lambda: stratified_variance([2], [0.5], [3], replacement=False),
            r"trials\[0\] must be an integer in \[1, 2\]: 3",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
