"""Accuracy under device faults: a mean over devices, each measured on images.

Whether image `j` is right on faulty device `i` is taken as a crossed model with two
random effects,

    y_ij = mean + device_i + image_j + rest_ij,

with variances `s_dev^2`, `s_test^2` and `s_img^2`. The mean over T devices and N images
then has variance ``s_dev^2 / T + s_img^2 / (T N)`` around the accuracy *on these
images*, and ``s_test^2 / N`` more around the accuracy on all images like these. More
images never make up for few devices, nor the other way.

References:
  S. R. Searle, G. Casella and C. E. McCulloch, "Variance Components", Wiley 1992,
  chapter 4 (the two-way crossed classification); F. E. Satterthwaite, "An approximate
  distribution of estimates of variance components", Biometrics Bulletin 2, 1946.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from jeff.evaluate import Interval, student_t
from jeff.sweep import checks

__all__ = ["DeviceAccuracy", "device_accuracy", "paired_difference"]


class DeviceAccuracy(NamedTuple):
    """Mean accuracy of faulty devices and where its variance comes from.

    Attributes:
      accuracy: Mean accuracy; the interval is for new devices on the same images.
      accuracy_any_images: The same mean; the interval is for new devices on new images,
        ``None`` without counts per image.
      device: `s_dev^2`, between devices.
      image: `s_img^2`, of an image on a device. Without counts per image it holds
        `s_test^2` too.
      test: `s_test^2`, between images whatever the device; ``None`` without counts per
        image.
    """

    accuracy: Interval
    accuracy_any_images: Interval | None
    device: float
    image: float
    test: float | None


def device_accuracy(
    correct: Any, images: int, *, per_image: Any = None, level: float = 0.95
) -> DeviceAccuracy:
    """Interval and variance components of the accuracy of faulty devices.

    With ``a_i = correct_i / N``, ``b_j = per_image_j / T``, their common mean `m`, and
    the mean squares

    - ``D = N sum (a_i - m)^2 / (T - 1)``,
    - ``I = T sum (b_j - m)^2 / (N - 1)``,
    - ``R = (T N m (1 - m) - (T - 1) D - (N - 1) I) / ((T - 1) (N - 1))``

    (``y^2 = y``, so counts suffice), whose expectations are ``s_img^2 + N s_dev^2``,
    ``s_img^2 + T s_test^2`` and ``s_img^2``:

    - ``s_img^2 = R``, ``s_dev^2 = (D - R) / N``, ``s_test^2 = (I - R) / T``, negative
      ones reported as 0;
    - new devices, same images: ``m ± t sqrt(D / (T N))``, `t` with ``T - 1`` degrees of
      freedom, which is Student's interval of the `a_i` (where few devices fail it is
      too short, see `jeff.sweep.mean_of_devices`);
    - new devices and images: variance ``(D + I - R) / (T N)`` (never less than
      ``D / (T N)``) and Satterthwaite's degrees of freedom.

    Without `per_image` the images are taken as drawn anew for every device (nested):
    ``s_img^2 = N / (N - 1) mean a_i (1 - a_i)`` and ``s_dev^2 = D / N - s_img^2 / N``;
    the first interval is the same.

    Args:
      correct: Images that each device got right, integers ``[T]``, ``T >= 2``.
      images: N, at least 2.
      per_image: Devices that got each image right, integers ``[N]``, or ``None``.
      level: Confidence level in (0, 1).

    Returns:
      The accuracy with one or two intervals, and the components.

    Raises:
      ValueError: If there are too few devices or images, a count is out of range or no
        integer, or the two kinds of counts have different sums.

    Examples:
      >>> found = device_accuracy([90, 80, 85, 81], 100)
      >>> [round(x, 4) for x in found.accuracy[:3]]
      [0.84, 0.7677, 0.9123]
      >>> f"{found.device:.6f} {found.image:.6f}"
      '0.000725 0.134192'
    """
    counts = _counts("correct", correct, images)
    accuracy = counts / images
    interval = student_t(accuracy, level=level)
    t, n, mean = counts.size, images, interval.value
    between = n * float(accuracy.var(ddof=1))  # D
    if per_image is None:
        within = n / (n - 1) * float((accuracy * (1 - accuracy)).mean())
        device = max(0.0, (between - within) / n)
        return DeviceAccuracy(interval, None, device, within, None)
    columns = _counts("per_image", per_image, t)
    if columns.size != n or columns.sum() != counts.sum():
        raise ValueError(
            f"per_image must hold images={n} counts of sum {counts.sum()}: it holds "
            f"{columns.size} of sum {columns.sum()}"
        )
    across = t * float((columns / t).var(ddof=1))  # I
    total = t * n * mean * (1 - mean)
    # A sum of squares: rounding must not make it negative.
    rest = max(0.0, (total - (t - 1) * between - (n - 1) * across))
    rest = rest / ((t - 1) * (n - 1))  # R
    if across > rest:
        parts = [(between, t - 1), (across, n - 1), (-rest, (t - 1) * (n - 1))]
    else:
        parts = [(between, t - 1)]
    variance = sum(x for x, _ in parts)
    spread = sum(x * x / df for x, df in parts)
    freedom = variance**2 / spread if spread > 0 else t - 1
    quantile = float(special.stdtrit(freedom, 0.5 + level / 2))
    half = quantile * math.sqrt(variance / (t * n))
    return DeviceAccuracy(
        accuracy=interval,
        accuracy_any_images=Interval(mean, mean - half, mean + half, t),
        device=max(0.0, (between - rest) / n),
        image=rest,
        test=max(0.0, (across - rest) / t),
    )


def paired_difference(
    first: Any, second: Any, images: int, *, level: float = 0.95
) -> Interval:
    """How much more accurate one design is than another under the same faults.

    Student's t interval of ``(first_i - second_i) / N`` over devices `i`. With common
    random numbers (the same keys for both designs, as `jeff.sweep.run` gives them) what
    the designs suffer alike cancels, so far fewer devices show a difference than two
    separate intervals need.

    Args:
      first: Images that each device of the first design got right, integers ``[T]``.
      second: The same of the second design, device by device under the same keys.
      images: Number of images, the same ones for all.
      level: Confidence level in (0, 1).

    Returns:
      The mean difference of accuracies, first minus second; one design is better where
      the interval leaves out 0.

    Raises:
      ValueError: If the two have different lengths, there are fewer than two devices,
        or a count is out of range or no integer.

    Examples:
      >>> found = paired_difference([90, 80, 85], [88, 79, 82], 100)
      >>> [round(x, 4) for x in found[:3]]
      [0.02, -0.0048, 0.0448]
    """
    ours = _counts("first", first, images)
    theirs = _counts("second", second, images)
    if ours.size != theirs.size:
        raise ValueError(
            f"first and second must pair up: {ours.size} and {theirs.size} devices"
        )
    return student_t((ours - theirs) / images, level=level)


def _counts(name: str, counts: Any, most: int) -> np.ndarray:
    """Checked float64 counts, at least two, each in [0, most]."""
    if most < 2:
        raise ValueError(
            f"need at least 2 observations per count of {name}, got {most}"
        )
    values = checks.whole(name, counts, most=most)
    if values.size < 2:
        raise ValueError(f"{name} must be at least two counts, got {values.size}")
    return values
