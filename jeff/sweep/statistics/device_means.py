"""Means over faulty devices whose intervals hold where few of them fail."""

import numpy as np

from jeff.evaluate import Interval, clopper_pearson, student_t

__all__ = [
    "FEW",
    "cut",
    "devices_that_differ",
    "few_differ",
    "mean_of_devices",
    "share_of_devices",
]

FEW = 10
"""Devices that differ, below which Student's interval is not trusted."""
_WHOLE = 1 - 1e-9  # a share from here on is 1: means of shares are rounded


def mean_of_devices(values: np.ndarray, *, level: float = 0.95) -> Interval:
    """Mean over devices of a number in [0, 1], with an interval for new devices.

    Student's interval, cut at 0 and 1, unless more than half of the devices agree and
    fewer than 10 do not: if `q` is the upper end of Clopper and Pearson's interval for
    the share of devices that differ from the common value `c`, the mean is in
    ``[c (1 - q), c + q (1 - c)]``. Student's would say that devices which never differ
    among a few do not exist.

    Args:
      values: float ``[devices]`` in [0, 1], at least two; such as accuracies.
      level: Confidence level in (0, 1).

    Returns:
      The mean and its interval.

    Raises:
      ValueError: If there are too few, one is not finite, or the level is out of range.

    Examples:
      >>> [round(x, 3) for x in mean_of_devices(np.full(50, 0.9))[:3]]
      [0.9, 0.836, 0.907]
      >>> [round(x, 3) for x in mean_of_devices(np.array([0.7, 0.8, 0.9]))[:3]]
      [0.8, 0.552, 1.0]

    References:
      The ends: derivation, a device that differs has a number in [0, 1].
    """
    values = np.asarray(values, float)
    student = cut(student_t(values, level=level))
    found, counts = np.unique(values, return_counts=True)
    common, devices = float(found[counts.argmax()]), values.size
    if not few_differ(values):
        return student
    q = clopper_pearson(devices_that_differ(values), devices, level=level).high
    low, high = common * (1 - q), common + q * (1 - common)
    return student._replace(low=min(low, student.value), high=max(high, student.value))


def devices_that_differ(values: np.ndarray) -> int:
    """How many devices do not have the most frequent value.

    Args:
      values: float ``[devices]``.

    Returns:
      Their number.

    Examples:
      >>> devices_that_differ(np.array([0.9, 0.9, 0.9, 0.2]))
      1
    """
    return int(values.size - np.unique(values, return_counts=True)[1].max())


def few_differ(values: np.ndarray) -> bool:
    """Whether Student's interval would miss that devices differ.

    Args:
      values: float ``[devices]``.

    Returns:
      True if more than half of the devices agree, and fewer than 10 do not.

    Examples:
      >>> few_differ(np.array([0.9, 0.9, 0.9, 0.2])), few_differ(np.array([0.9, 0.2]))
      (True, False)
    """
    others = devices_that_differ(values)
    return others < FEW and 2 * others < values.size


def share_of_devices(shares: np.ndarray, *, level: float = 0.95) -> Interval:
    """Mean over devices of a share of images, with an interval for new devices.

    That of `mean_of_devices`, unless nearly all devices are at one end. If fewer than
    10 (and not all) have an event, the interval is from 0 to the upper end of Clopper
    and Pearson's for the share of devices with an event, which no mean exceeds. If
    fewer than 10 (and not all) have an image *without* an event, it is from the lower
    end for the share of devices that have none, to 1.

    Args:
      shares: float ``[devices]`` in [0, 1], at least two.
      level: Confidence level in (0, 1).

    Returns:
      The mean and its interval.

    Raises:
      ValueError: If there are too few, or the level is out of range.

    Examples:
      >>> [round(x, 3) for x in share_of_devices(np.zeros(50))[:3]]
      [0.0, 0.0, 0.071]
      >>> [round(x, 3) for x in share_of_devices(np.ones(8))[:3]]
      [1.0, 0.631, 1.0]

    References:
      The ends: derivation, a share is at most 1 where there is an event and at least
      0 elsewhere. Interval: `jeff.evaluate.clopper_pearson`.
    """
    shares = np.asarray(shares, float)
    mean, devices = float(shares.mean()), shares.size
    events, whole = int((shares > 0).sum()), int((shares >= _WHOLE).sum())
    if devices > 1 and events < min(FEW, devices):
        high = clopper_pearson(events, devices, level=level).high
        return Interval(mean, 0.0, high, devices)
    if devices > 1 and devices - whole < min(FEW, devices):
        low = clopper_pearson(whole, devices, level=level).low
        return Interval(mean, low, 1.0, devices)
    return mean_of_devices(shares, level=level)


def cut(found: Interval) -> Interval:
    """An interval of a share: nothing is below 0 or above 1.

    Args:
      found: An interval.

    Returns:
      It, with ends in [0, 1].

    Examples:
      >>> cut(Interval(0.5, -0.5, 1.5, 2))
      Interval(value=0.5, low=0.0, high=1.0, trials=2)
    """
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))
