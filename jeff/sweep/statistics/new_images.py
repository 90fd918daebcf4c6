"""Accuracy of faulty devices on images other than those of the campaign."""

import math
from typing import Any

import numpy as np

from jeff.evaluate import Interval, wilson
from jeff.sweep.statistics.device_means import FEW, cut, few_differ, mean_of_devices
from jeff.sweep.statistics.two_level import device_accuracy

__all__ = ["accuracy_any_images"]


def accuracy_any_images(
    correct: Any, per_image: Any, *, level: float = 0.95
) -> Interval:
    """Mean accuracy, with an interval for new devices and new images alike.

    That of `device_accuracy` where devices and images vary enough for their means to be
    taken for normal. Else it is made of two intervals that do not take them so: for new
    devices that of `mean_of_devices`, and for new images Wilson's, as if an image were
    right or wrong on all devices, which is the most that images can differ. Each end is
    ``sqrt(d^2 + i^2)`` from the mean, for their distances `d` and `i`. What is left to
    chance within both is then counted twice, which errs on the safe side.

    Enough is at least 10 devices that differ from the most frequent accuracy (or half
    of them), at least 10 images that most devices get right, and 10 that most get
    wrong. A network that is right on 98 % of 300 images has 6 of the latter: how many
    there are among other images is a question of counting, not of averaging.

    Args:
      correct: Images that each device got right, integers ``[T]``, ``T >= 2``.
      per_image: Devices that got each image right, integers ``[N]``, ``N >= 2``, of the
        same sum.
      level: Confidence level in (0, 1).

    Returns:
      The mean and its interval, within [0, 1]; `trials` is T.

    Raises:
      ValueError: If there are too few devices or images, a count is out of range or no
        integer, or the sums differ.

    Examples:
      Eight devices alike, which got the same 18 of 20 images right:

      >>> found = accuracy_any_images([18] * 8, [8] * 18 + [0] * 2)
      >>> [round(x, 2) for x in found[:3]]
      [0.9, 0.51, 0.98]

    References:
      Ends from separate intervals: G. Y. Zou and A. Donner, "Construction of confidence
      limits about effect measures: a general approach", Statistics in Medicine 27,
      2008. The rest: `device_accuracy`, `mean_of_devices`, `jeff.evaluate.wilson`.
    """
    devices, images = np.size(correct), np.size(per_image)
    found = device_accuracy(correct, images, per_image=per_image, level=level)
    usual = found.accuracy_any_images
    accuracies, shares = np.asarray(correct) / images, np.asarray(per_image) / devices
    easy = np.count_nonzero(shares >= 0.5)
    if usual and not few_differ(accuracies) and FEW <= easy <= images - FEW:
        return cut(usual)
    mean = found.accuracy.value
    over = (
        mean_of_devices(accuracies, level=level),
        wilson(float(shares.sum()), images, level=level),
    )
    low = mean - math.hypot(*(mean - part.low for part in over))
    high = mean + math.hypot(*(part.high - mean for part in over))
    return cut(Interval(mean, low, high, devices))
