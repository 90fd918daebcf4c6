"""Accuracy on new images: the interval's ends, and how often it covers."""

import numpy as np
import pytest

from jeff.evaluate import clopper_pearson, wilson
from jeff.sweep import accuracy_any_images, device_accuracy
from jeff.sweep.statistics.device_means import cut

REPEATS = 400


def ordinary(rng):
    """Thirty devices, 40 images, both of two sorts: mean 0.6."""
    device, image = rng.choice([-1, 1], (30, 1)), rng.choice([-1, 1], (1, 40))
    return rng.random((30, 40)) < 0.6 + 0.1 * device + 0.25 * image


def rarely_failing(rng):
    """Of 32 devices one in 30 loses half its answers; images are right or wrong."""
    right = rng.random((1, 100)) < 0.9
    keeps = (rng.random((32, 1)) > 1 / 30) | (rng.random((32, 100)) < 0.5)
    return right & keeps


def few_wrong(rng):
    """One image in 30 is wrong, whatever the device; all devices lose a little."""
    return (rng.random((1, 40)) > 1 / 30) & (rng.random((20, 40)) < 0.98)


@pytest.mark.parametrize(
    ("draw", "mean"),
    [(ordinary, 0.6), (rarely_failing, 0.9 * 59 / 60), (few_wrong, 0.98 * 29 / 30)],
)
def test_it_covers_new_images_where_devices_alone_do_not(draw, mean):
    rng = np.random.default_rng(0)
    covered = of_devices = 0
    for _ in range(REPEATS):
        right = draw(rng)
        correct, per_image = right.sum(1), right.sum(0)
        found = accuracy_any_images(correct, per_image)
        assert 0 <= found.low <= found.value <= found.high <= 1
        covered += found.low <= mean <= found.high
        own = device_accuracy(correct, right.shape[1]).accuracy
        of_devices += own.low <= mean <= own.high
    # 95 % of 400 has a standard deviation of 4.4: 4 of them, and one percent for
    # Satterthwaite's approximation.
    assert covered > 0.95 * REPEATS - 4 * 4.4 - 4
    assert of_devices < 0.8 * REPEATS


def test_it_is_the_analysis_of_variance_where_both_vary():
    right = ordinary(np.random.default_rng(1)).astype(int)
    correct, per_image = right.sum(1), right.sum(0)
    usual = device_accuracy(correct, 40, per_image=per_image).accuracy_any_images
    assert accuracy_any_images(correct, per_image) == cut(usual)
    wider = accuracy_any_images(correct, per_image, level=0.99)
    assert wider.high > usual.high and wider.value == usual.value


def test_ends_by_hand_where_few_differ():
    # Four devices alike, 3 of 4 images right: Clopper and Pearson's upper end for 0 of
    # 4 devices that differ, and Wilson's ends for 3 of 4 images.
    found = accuracy_any_images([3] * 4, [4, 4, 4, 0])
    q, image = clopper_pearson(0, 4).high, wilson(3, 4)
    low = (0.75 * q) ** 2 + (0.75 - image.low) ** 2
    high = (0.25 * q) ** 2 + (image.high - 0.75) ** 2
    assert found == pytest.approx((0.75, 0.75 - low**0.5, min(1, 0.75 + high**0.5), 4))


@pytest.mark.parametrize(
    ("correct", "per_image", "message"),
    [
        ([3], [1, 1, 1, 0], "correct must be at least two"),
        ([3, 3], [2, 2, 1, 0], "counts of sum 6"),
        ([3, 3], [3, 3, 0, 0], r"per_image\[0\] must be an integer in \[0, 2\]: 3"),
        ([1, 1], [2], "at least 2 observations"),
    ],
)
def test_errors_name_the_value(correct, per_image, message):
    with pytest.raises(ValueError, match=message):
        accuracy_any_images(correct, per_image)
