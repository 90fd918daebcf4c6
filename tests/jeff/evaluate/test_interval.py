import math

import numpy as np
import pytest

from jeff.evaluate import student_t, wilson


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
        (lambda: student_t([1.0]), "at least two"),
        (lambda: student_t([1.0, float("nan")]), r"samples\[1\]"),
        (lambda: student_t([1.0, 2.0], level=0), "level=0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
