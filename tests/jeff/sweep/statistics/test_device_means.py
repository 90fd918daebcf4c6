"""Intervals of means over devices where few devices fail."""

import numpy as np
import pytest

from jeff.evaluate import student_t
from jeff.sweep.statistics.device_means import mean_of_devices, share_of_devices


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.3])
@pytest.mark.parametrize("devices", [8, 32])
def test_rare_devices_that_fail_are_in_the_interval(devices, rate):
    """Of 500 campaigns, whose devices sometimes lose half of their accuracy of 0.9."""
    rng = np.random.default_rng(0)
    failed = rng.random((500, devices)) < rate
    mean, missed, student_missed = 0.9 - 0.45 * rate, 0, 0
    for row in np.where(failed, 0.45, 0.9):
        _, low, high, _ = mean_of_devices(row)
        missed += not low <= mean <= high
        _, low, high, _ = student_t(row)
        student_missed += not low <= mean <= high
    assert missed <= 0.05 * 500
    if rate <= 0.03:
        assert student_missed > 0.3 * 500


def test_where_many_differ_it_is_students_interval():
    values = np.random.default_rng(1).random(30)
    assert mean_of_devices(values) == student_t(values)
    assert mean_of_devices(np.array([0.1, 0.9]))[1:3] == (0.0, 1.0)
    half = np.array([0.5] * 20 + [0.4] * 10)  # 10 that differ are enough
    assert mean_of_devices(half) == student_t(half)
    low, high = mean_of_devices(half[:-1])[1:3]
    assert low < student_t(half[:-1]).low and high > 0.5
    with pytest.raises(ValueError, match="two"):
        mean_of_devices(np.ones(1))


def test_few_devices_at_the_other_end_give_a_bound():
    shares = np.array([0.0] * 20 + [0.5])
    value, low, high, devices = share_of_devices(shares)
    assert (low, devices) == (0, 21) and 0.15 < high < 0.25
    mirrored = share_of_devices(1 - shares)  # losing and keeping are one question
    assert mirrored[:3] == pytest.approx((1 - value, 1 - high, 1.0))
    assert share_of_devices(np.array([0.4, 0.5, 0.6])) == student_t([0.4, 0.5, 0.6])
    assert share_of_devices(np.array([0.1, 0.9]))[1:3] == (0.0, 1.0)
    with pytest.raises(ValueError, match="two"):
        share_of_devices(np.zeros(1))
