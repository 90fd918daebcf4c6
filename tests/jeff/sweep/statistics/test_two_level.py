import math

import numpy as np
import pytest

from jeff.evaluate import student_t
from jeff.sweep import device_accuracy, paired_difference

# y_ij = 1 with probability MEAN + device_i + image_j, device and image effects of
# either sign alike: variances 0.1^2 and 0.25^2, and E[q (1 - q)] for the rest,
# 0.6 * 0.4 - 0.1^2 - 0.25^2.
MEAN, DEVICE, TEST = 0.6, 0.1**2, 0.25**2
REST = MEAN * (1 - MEAN) - DEVICE - TEST


def simulate(rng, repeats, devices, images):
    device = 0.1 * rng.choice([-1, 1], (repeats, devices, 1))
    image = 0.25 * rng.choice([-1, 1], (repeats, 1, images))
    return rng.random((repeats, devices, images)) < MEAN + device + image


def test_components_by_hand():
    # Rows 1 1 1 1, 1 1 1 0, 1 0 0 0: a = 1, 3/4, 1/4 and b = 1, 2/3, 2/3, 1/3, mean
    # 2/3. D = 4 (1/9 + 1/144 + 25/144) / 2 = 7/12; I = 3 (1/9 + 1/9) / 3 = 2/9; all
    # squares 12 (2/3) (1/3) = 8/3; R = (8/3 - 7/6 - 2/3) / 6 = 5/36.
    found = device_accuracy([4, 3, 1], 4, per_image=[3, 2, 2, 1])
    assert found.image == pytest.approx(5 / 36)
    assert found.device == pytest.approx((7 / 12 - 5 / 36) / 4)
    assert found.test == pytest.approx((2 / 9 - 5 / 36) / 3)
    assert found.accuracy == student_t([1.0, 0.75, 0.25])
    # New images too: variance (7/12 + 2/9 - 5/36) / 12 = 1/18, with Satterthwaite's
    # (2/3)^2 / ((7/12)^2 / 2 + (2/9)^2 / 3 + (5/36)^2 / 6) = 2.3 degrees of freedom,
    # between those of t tables: 4.303 at 2 and 3.182 at 3.
    wider = found.accuracy_any_images
    t = (wider.high - wider.value) / math.sqrt(1 / 18)
    assert 3.182 < t < 4.303 and wider.value == pytest.approx(2 / 3)
    # Without counts per image: (4/3) mean of 0, 3/16, 3/16 = 1/6.
    nested = device_accuracy([4, 3, 1], 4)
    assert nested.image == pytest.approx(1 / 6)
    assert nested.device == pytest.approx((7 / 12 - 1 / 6) / 4)
    assert nested.test is None and nested.accuracy_any_images is None


def test_estimators_are_unbiased_on_simulated_devices():
    right = simulate(np.random.default_rng(0), 200, 12, 60)
    found = [
        device_accuracy(y.sum(1), 60, per_image=y.sum(0))[2:] for y in right.astype(int)
    ]
    found = np.array(found, float)
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    # Components this far from 0 are practically never cut off; 4 standard errors.
    assert (np.abs(found.mean(0) - [DEVICE, REST, TEST]) < 4 * error).all()
    assert (error < [0.001, 0.001, 0.002]).all()  # so the line above says something


def test_intervals_cover_what_they_say_and_images_count():
    devices, images = 30, 40
    rng = np.random.default_rng(1)
    right = simulate(rng, 1000, devices, images).astype(int)
    # On images of the same kinds everywhere, the accuracy over all devices is known.
    same = any_images = fixed = 0
    for y in right:
        found = device_accuracy(y.sum(1), images, per_image=y.sum(0))
        any_images += (
            found.accuracy_any_images.low <= MEAN <= (found.accuracy_any_images.high)
        )
        same += found.accuracy.low <= MEAN <= found.accuracy.high
    # Fixed images, one draw of their effects: the target is their own mean.
    effects = 0.25 * rng.choice([-1, 1], images)
    device = 0.1 * rng.choice([-1, 1], (1000, devices, 1))
    for y in rng.random((1000, devices, images)) < MEAN + device + effects:
        found = device_accuracy(y.sum(1), images).accuracy
        fixed += found.low <= MEAN + effects.mean() <= found.high
    # 95 % of 1,000 has a standard deviation of 7; 4 of them, and Satterthwaite's
    # approximation is worth another percent.
    assert abs(fixed - 950) < 28
    assert abs(any_images - 950) < 38
    assert same < 850  # devices alone say too little about new images


def test_one_leaves_the_other_alone_when_there_is_no_image_effect():
    # b the same for all images: the image term is cut at 0, both intervals agree.
    found = device_accuracy([2, 2, 4], 4, per_image=[2, 2, 2, 2])
    assert found.test == 0.0
    assert found.accuracy_any_images == pytest.approx(found.accuracy)
    every = device_accuracy([4, 4], 4, per_image=[2, 2, 2, 2])
    assert every.accuracy_any_images[:3] == (1.0, 1.0, 1.0)
    assert every[2:] == (0.0, 0.0, 0.0)


def test_pairing_on_common_faults_shows_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(2)
    severity = rng.normal(0.7, 0.1, 20)
    first = rng.binomial(1000, np.clip(severity + 0.03, 0, 1))
    second = rng.binomial(1000, np.clip(severity, 0, 1))
    paired = paired_difference(first, second, 1000)
    assert paired.low > 0 and paired.low < 0.03 < paired.high
    assert paired == student_t((first - second) / 1000)
    ours, theirs = (device_accuracy(x, 1000).accuracy for x in (first, second))
    assert ours.low < theirs.high  # apart, they overlap


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: device_accuracy([3], 4), "correct must be at least two"),
        (lambda: device_accuracy([3, 5], 4), r"correct\[1\] .*\[0, 4\]: 5"),
        (lambda: device_accuracy([3, 2.5], 4), r"correct\[1\] must be an integer"),
        (lambda: device_accuracy([1, 1], 1), "at least 2 observations"),
        (lambda: device_accuracy([1, 2], 2, per_image=[1, 1]), "counts of sum 3"),
        (lambda: paired_difference([1, 2], [1, 2, 3], 4), "2 and 3 devices"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
