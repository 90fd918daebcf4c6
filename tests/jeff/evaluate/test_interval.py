import math

import numpy as np
import pytest

from jeff.evaluate import (
    clopper_pearson,
    empirical_bernstein,
    proportion,
    student_t,
    wilson,
)


def test_wilson_ends_solve_the_defining_equation():
    for successes, trials in [(8, 10), (1, 3), (0, 5), (5, 5), (730, 1000)]:
        p, low, high, n = wilson(successes, trials, level=0.9)
        z = 1.6448536269514722  # 95 % quantile of the standard normal distribution
        for q in (low, high):
            bound = z * math.sqrt(q * (1 - q) / trials)
            assert abs(p - q) == pytest.approx(bound, abs=1e-12)
        assert 0 <= low <= p <= high <= 1 and n == trials


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_wilson_covers_about_as_often_as_it_says(p):
    trials = 100

    def covered(low, high):
        return low <= p <= high

    # Exact coverage from the binomial weights. It cannot be 0.95 for every p, since the
    # number of successes is discrete; the textbook interval's is 0.63 at p = 0.99.
    coverage = sum(
        math.comb(trials, k) * p**k * (1 - p) ** (trials - k)
        for k in range(trials + 1)
        if covered(*wilson(k, trials)[1:3])
    )
    assert 0.92 < coverage < 0.98


def binomial(p, trials):
    k = np.arange(trials + 1)
    choose = np.array([math.lgamma(trials + 1) - math.lgamma(i + 1) for i in k])
    choose -= np.array([math.lgamma(trials - i + 1) for i in k])
    return np.exp(choose + k * math.log(p) + (trials - k) * math.log1p(-p))


def test_clopper_pearson_published_ends():
    # Any printed table for n = 10: 0 is [0, 0.308] and 5 is [0.187, 0.813].
    assert clopper_pearson(0, 10)[1:3] == (0.0, pytest.approx(0.308, abs=5e-4))
    assert clopper_pearson(5, 10)[1:3] == pytest.approx((0.187, 0.813), abs=5e-4)
    # No event in n trials: (1 - high)^n = 0.025; the "rule of three" at 90 %: 3 / n.
    high = clopper_pearson(0, 50).high
    assert high == pytest.approx(1 - 0.025 ** (1 / 50), rel=1e-12)
    assert clopper_pearson(0, 1000, level=0.9).high == pytest.approx(3e-3, rel=3e-3)


def test_clopper_pearson_ends_solve_the_defining_equations():
    for successes, trials in [(8, 10), (1, 3), (3, 200), (199, 200)]:
        _, low, high, _ = clopper_pearson(successes, trials, level=0.98)
        assert binomial(low, trials)[successes:].sum() == pytest.approx(0.01)
        assert binomial(high, trials)[: successes + 1].sum() == pytest.approx(0.01)
        mirrored = clopper_pearson(trials - successes, trials, level=0.98)
        assert mirrored.low == pytest.approx(1 - high, rel=1e-12)


@pytest.mark.parametrize("trials", [5, 40, 150])
def test_exact_coverage_of_intervals_by_enumeration(trials):
    grid = np.linspace(0.002, 0.998, 250)
    mass = np.stack([binomial(p, trials) for p in grid])

    def coverage(interval):
        ends = np.array([interval(k, trials)[1:3] for k in range(trials + 1)])
        inside = (ends[:, 0] <= grid[:, None]) & (grid[:, None] <= ends[:, 1])
        return (mass * inside).sum(1)

    exact, wide, used = map(coverage, (clopper_pearson, wilson, proportion))
    assert exact.min() >= 0.95 - 1e-12
    # Wilson's is right on average, and dips near 0 and 1; `proportion` does not there.
    assert abs(wide.mean() - 0.95) < 0.015 and 0.8 < wide.min() < 0.95
    assert used.min() >= wide.min() and used.min() > 0.91


def test_proportion_is_exact_below_ten_events_on_either_side():
    for k, n in [(0, 50), (9, 50), (41, 50), (5, 10)]:
        assert proportion(k, n, level=0.9) == clopper_pearson(k, n, level=0.9)
    for k, n in [(10, 50), (40, 50)]:
        assert proportion(k, n, level=0.9) == wilson(k, n, level=0.9)


def test_empirical_bernstein_by_hand_and_wider_than_t():
    # Ten ones and ten zeros: v = 5 / 19, L = ln 80, half = sqrt(2 v L / 20) + 7 L / 57.
    log = math.log(80)
    half = math.sqrt(2 * 5 / 19 * log / 20) + 7 * log / 57
    assert half > 0.5  # so few trials say nothing
    assert empirical_bernstein([0.0, 1.0] * 10)[:3] == (0.5, 0.0, 1.0)
    samples = np.tile([0.0, 1.0], 1000)
    v = 0.25 * 2000 / 1999
    half = math.sqrt(2 * v * log / 2000) + 7 * log / (3 * 1999)
    found = empirical_bernstein(samples)
    assert found.high - found.value == pytest.approx(half, rel=1e-12)
    assert half > student_t(samples).high - 0.5


def test_student_t_known_quantiles():
    # 97.5 % quantiles of Student's t from any printed table: 12.706, 4.303, 2.262.
    for n, quantile in [(2, 12.706), (3, 4.303), (10, 2.262)]:
        samples = np.arange(n, dtype=np.float64)
        mean, low, high, trials = student_t(samples)
        error = samples.std(ddof=1) / math.sqrt(n)
        assert mean == samples.mean() and trials == n
        assert (high - low) / 2 / error == pytest.approx(quantile, abs=5e-4)


def test_wider_level_gives_wider_interval():
    ends = [student_t([1.0, 2.0, 4.0], level=level) for level in (0.5, 0.9, 0.99)]
    assert ends[0].high < ends[1].high < ends[2].high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(3, 2), "successes=3, trials=2"),
        (lambda: wilson(0, 0), "trials=0"),
        (lambda: wilson(1, 2, level=1.0), "level=1.0"),
        (lambda: clopper_pearson(-1, 2), "successes=-1"),
        (lambda: clopper_pearson(1, 2, level=0.0), "level=0.0"),
        (lambda: proportion(3, 2), "successes=3, trials=2"),
        (lambda: empirical_bernstein([0.5, 1.5]), r"samples\[1\] is outside"),
        (lambda: empirical_bernstein([0.5]), "at least two"),
        (lambda: empirical_bernstein([0.5, 0.6], level=2), "level=2"),
        (lambda: student_t([1.0]), "at least two"),
        (lambda: student_t([1.0, float("nan")]), r"samples\[1\]"),
        (lambda: student_t([1.0, 2.0], level=0), "level=0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
