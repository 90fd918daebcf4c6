"""Curves: which intervals a point has."""

import numpy as np
import pytest

from jeff.evaluate import clopper_pearson, empirical_bernstein, student_t
from jeff.sweep import Margin, Outcome, SweepResult, accuracy_curve, look_level


def test_after_stopping_all_intervals_are_of_the_last_look():
    counts = np.random.default_rng(0).binomial(20, 0.3, (1, 1, 80))
    images = np.full_like(counts, 20)
    stats = Outcome(images, 20 - counts, counts, counts, 0 * counts, 0.0 * counts,
                    0 * counts)  # fmt: skip
    result = SweepResult(
        stats, np.array([0.5]), np.array([[80]]), None, {"unit": 16}, 0.0
    )
    level = look_level(5)
    for method, mean in (("student_t", student_t),
                         ("empirical_bernstein", empirical_bernstein)):  # fmt: skip
        stop = Margin(margin=0.1, count="changed", out_of="images", method=method)
        (point,) = accuracy_curve(result, stop=stop)
        shares = counts.ravel() / 20
        assert point.sdc == point.critical == mean(shares, level=level)
        assert point.accuracy == mean((20 - counts.ravel()) / 20, level=level)
    (point,) = accuracy_curve(result, stop=stop, independent=True)
    assert point.sdc == clopper_pearson(counts.sum(), 1600, level=level)


def test_accuracy_without_an_event_is_no_certainty():
    count = np.full((1, 1, 50), 10)
    stats = Outcome(count, count, *[0 * count] * 5)
    result = SweepResult(stats, np.array([0.0]), np.array([[50]]), None, {}, 0.0)
    (point,) = accuracy_curve(result)
    assert point.accuracy[:3] == pytest.approx((1.0, 1 - point.sdc.high, 1.0))
    assert point.sdc.high == pytest.approx(0.071, abs=1e-3)
