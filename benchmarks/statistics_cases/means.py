"""Means over devices that seldom fail, and accuracy on images of a campaign or others.

Simulated campaigns, and in which share of them an interval of 95 % holds the truth.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jeff.evaluate import Measure, student_t
from jeff.sweep import accuracy_any_images, device_accuracy, mean_of_devices
from statistics_cases.measures import generator, share

__all__ = ["IMAGES", "LOSSES", "Campaign", "device_means", "images"]

_ACCURACY = 0.9  # of devices that do not fail
LOSSES = {
    "half": (0.5, lambda u: np.full_like(u, 0.5)),
    "skewed": (0.25, lambda u: u**3),
}
"""Part of its accuracy that a device loses which fails: mean, and a function of a
uniform variable. Of the skewed ones most lose little and few nearly all."""


def device_means(
    loss: str, devices: int, rates: tuple[float, ...], *, seed: int, campaigns: int
) -> list[Measure]:
    """How often an interval misses the mean accuracy of devices.

    Args:
      loss: One of `LOSSES`.
      devices: Their number in a campaign.
      rates: Shares of devices that fail.
      seed: Of the record.
      campaigns: Their number, of each rate.

    Returns:
      Shares of campaigns that `mean_of_devices` and Student's interval miss in.
    """
    part, lost = LOSSES[loss]
    kinds = {"mean_of_devices": mean_of_devices, "student_t": student_t}
    found = []
    for rate in rates:
        case = f"{loss}.{devices}.{rate:g}"
        rng = generator(seed, f"means.{case}")
        fails = rng.random((campaigns, devices)) < rate
        losses = np.where(fails, lost(rng.random((campaigns, devices))), 0.0)
        rows, truth = _ACCURACY * (1 - losses), _ACCURACY * (1 - rate * part)
        for name, interval in kinds.items():
            held = np.array([_holds(interval(row), truth) for row in rows])
            found.append(share(f"means_missed.{name}.{case}", ~held))
    return found


class Campaign(NamedTuple):
    """Which images devices are right on.

    Attributes:
      devices: Their number.
      images: Their number.
      mean: Accuracy on all images of all devices.
      draw: A function of random numbers that gives bool ``[devices, images]``.
    """

    devices: int
    images: int
    mean: float
    draw: Callable[[np.random.Generator], np.ndarray]


def _ordinary(rng: np.random.Generator) -> np.ndarray:
    """Devices and images of two sorts each: variances 0.1^2 and 0.25^2."""
    device, image = rng.choice([-1, 1], (30, 1)), rng.choice([-1, 1], (1, 40))
    return rng.random((30, 40)) < 0.6 + 0.1 * device + 0.25 * image


def _few_fail(rng: np.random.Generator) -> np.ndarray:
    """One device in 30 loses half its answers; images are right or wrong."""
    keeps = (rng.random((32, 1)) > 1 / 30) | (rng.random((32, 100)) < 0.5)
    return (rng.random((1, 100)) < 0.9) & keeps


def _few_wrong(rng: np.random.Generator) -> np.ndarray:
    """One image in 30 is wrong, whatever the device; all devices lose a little."""
    return (rng.random((1, 40)) > 1 / 30) & (rng.random((20, 40)) < 0.98)


IMAGES = {
    "both_vary": Campaign(30, 40, 0.6, _ordinary),
    "few_devices_fail": Campaign(32, 100, 0.9 * 59 / 60, _few_fail),
    "few_images_wrong": Campaign(20, 40, 0.98 * 29 / 30, _few_wrong),
}
"""Cases of `images`."""


def images(case: str, *, seed: int, campaigns: int) -> list[Measure]:
    """How often an interval holds the accuracy on all images, with new ones every time.

    Args:
      case: One of `IMAGES`.
      seed: Of the record.
      campaigns: Their number.

    Returns:
      Shares of campaigns: of Student's interval over devices, of the analysis of
      variance, and of `accuracy_any_images`.
    """
    campaign, rng = IMAGES[case], generator(seed, f"images.{case}")
    held: dict[str, list[bool]] = {"devices": [], "variance": [], "any_images": []}
    for _ in range(campaigns):
        right = campaign.draw(rng)
        correct, per_image = right.sum(1), right.sum(0)
        found = device_accuracy(correct, campaign.images, per_image=per_image)
        intervals = {
            "devices": found.accuracy,
            "variance": found.accuracy_any_images,
            "any_images": accuracy_any_images(correct, per_image),
        }
        for name, interval in intervals.items():
            held[name].append(_holds(interval, campaign.mean))
    return [
        share(f"images_held.{name}.{case}", np.array(h)) for name, h in held.items()
    ]


def _holds(interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high
